import random

import pytest

from serving import heavy
from serving.errors import TooLarge
from serving.http import forms
from serving.http.forms import Part, read_form


def form_of(parts: list[Part]) -> bytes:
    head = b'content-disposition: form-data; name="x"; filename="%s"'
    body = b"".join(b"--b\r\n" + head % part.name.encode() + b"\r\n\r\n" + part.data + b"\r\n" for part in parts)
    return body + b"--b--\r\n"


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1000])
def test_a_form_is_the_same_whole_or_in_pieces(monkeypatch: pytest.MonkeyPatch, size: int):
    chance = random.Random(size)
    # What nearly is a boundary, at every place of a piece.
    made = [b"", b"\r", b"\r\n--", b"\r\n--c\r\n", b"-b", b"x" * 3000]
    parts = [Part(f"{place}.png", chance.choice(made) + chance.randbytes(place)) for place in range(30)]
    given = []
    monkeypatch.setattr(forms, "PIECE_BYTES", size)
    monkeypatch.setattr(heavy, "give_way", lambda: given.append(1))
    body = form_of(parts)
    assert read_form(body, b"b", 30, 1000) == parts
    assert len(given) == -(-len(body) // size)


@pytest.mark.parametrize("before", [b"", b"\r\n", b"\r\n\r\n"])
def test_as_many_parts_as_are_allowed_are_read_whatever_empty_lines_come_first(before: bytes):
    parts = [Part("a.png", b"one"), Part("b.png", b"two")]
    assert read_form(before + form_of(parts), b"b", 2, 1000) == parts
    with pytest.raises(TooLarge, match="more than 1 parts"):
        read_form(before + form_of(parts), b"b", 1, 1000)
