import random

import pytest

from serving import heavy
from serving.errors import InvalidInput, TooLarge
from serving.http import forms
from serving.http.forms import Part, boundary_of, read_form


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


# What nearly is a boundary, a head or a fold, and may stand in a picture.
TRICKY = [
    b"",
    b"\r\n a\r\n\tb\r\n\r\n c",
    b"\r\n--bX \r\n a: b\r\n c\r\n\r\n",
    b"\n--b \r\nX: a\r\n b\r\n\r\n",
    b" \t\r\n --b\r\n\t",
    b"x --b\r\nX: a\r\n b\r\n\r\n",
    b"\r\n--b\r \r\n c",
]


@pytest.mark.parametrize("preamble", [b"", b"\r\n", b"See --b below.\r\n", b"folded\r\n line\r\n\r\n", b"--a\n"])
@pytest.mark.parametrize("padding", [b"", b" ", b"\t \t"])
@pytest.mark.parametrize("fold", [b" ", b"\r\n ", b"\r\n\t", b" \r\n  \r\n "])
@pytest.mark.parametrize("size", [1, 16_384])
def test_what_multipart_allows_around_parts_is_read_and_their_bytes_stay(
    monkeypatch: pytest.MonkeyPatch, preamble: bytes, padding: bytes, fold: bytes, size: int
):
    monkeypatch.setattr(forms, "PIECE_BYTES", size)
    parts = [Part(f"{place}.png", data) for place, data in enumerate(TRICKY)]
    body = preamble
    for part in parts:
        head = b'X-First: 1\r\nContent-Disposition:%sform-data;%sfilename="%s"' % (fold, fold, part.name.encode())
        body += b"--b" + padding + b"\r\n" + head + b"\r\n\r\n" + part.data + b"\r\n"
    assert read_form(body + b"--b--" + padding + b"\r\nthe end\r\n--b\r\n", b"b", 20, 200) == parts


@pytest.mark.parametrize("padding", [b"", b" \t"])
def test_a_part_without_headers_is_read(padding: bytes):
    body = b"--b" + padding + b"\r\n\r\n a\r\n b\r\n--b" + padding + b"\r\n\r\n\r\n--b--\r\n"
    assert read_form(body, b"b", 2, 100) == [Part("", b" a\r\n b"), Part("", b"")]


def test_a_part_is_named_by_its_file_else_by_its_field_and_by_no_other_part():
    names = [b'name="x"; filename="a.png"', b'name="x"', b'name="x"; filename=""', b'name="x"; filename="\xff.png"']
    heads = [b"Content-Disposition: form-data; " + name for name in names]
    heads.insert(1, b"X: y")
    body = b"".join(b"--b\r\n" + head + b"\r\n\r\n1\r\n" for head in heads) + b"--b--\r\n"
    assert [part.name for part in read_form(body, b"b", 9, 100)] == ["a.png", "", "x", "x", "\ufffd.png"]


@pytest.mark.parametrize(
    "body",
    [
        b"preamble --b\r\n\r\na\r\n--b--\r\n",
        b"preamble\r\n--b--\r\n",
        b"--b x\r\n\r\na\r\n--b--\r\n",
        b"--b\r\n X: folded onto nothing\r\n\r\na\r\n--b--\r\n",
        b"--b\r\nX: " + b"\r\n a" * 100 + b"\r\n\r\na\r\n--b--\r\n",
        b"--b\r\nX: a\r\n b",
        b"no boundary",
    ],
)
def test_what_multipart_does_not_allow_is_refused(body: bytes):
    with pytest.raises(InvalidInput, match="multipart"):
        read_form(body, b"b", 9, 100)


@pytest.mark.parametrize("padding", [b" ", b"\t\t"])
def test_white_space_is_no_part_of_a_boundary(padding: bytes):
    assert boundary_of("", b"--a b" + padding + b"\r\n") == b"a b"


def test_a_long_type_is_read_as_far_as_a_boundary_may_stand_in_it():
    body = b"before\r\n--b\r\n"
    assert boundary_of("multipart/form-data; boundary=b" + ";" * 30_000, body) == b"b"
    assert boundary_of("multipart/form-data;" + ";" * 30_000 + "boundary=b", body) is None
    given: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forms, "parse_options_header", lambda text: given.append(text) or (b"", {}))
        boundary_of(";" * 30_000, body)
    assert [len(text) for text in given] == [forms.LONGEST_TYPE]


def test_a_head_of_more_than_its_headers_may_have_is_refused_as_it_is(monkeypatch: pytest.MonkeyPatch):
    head = b'--b\r\ncontent-disposition: form-data; name="x"' + b"\r\n " * 31_000 + b"\r\n\r\nx\r\n--b--\r\n"
    for lines, said in ((1000, "header size exceeded"), (forms.MAX_HEAD_LINES, "malformed")):
        monkeypatch.setattr(forms, "MAX_HEAD_LINES", lines)
        with pytest.raises(InvalidInput, match=said):
            read_form(head, b"b", 1, 1000)
    folded = b'--b\r\ncontent-disposition: form-data;\r\n filename="a.png"' + b"\r\n " * 900 + b"\r\n\r\nx\r\n--b--\r\n"
    assert read_form(folded, b"b", 1, 1000) == [Part("a.png", b"x")]
