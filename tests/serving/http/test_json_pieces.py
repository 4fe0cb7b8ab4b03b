import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import InvalidInput
from serving.http import json_pieces
from serving.http.strict_json import refuse_repeated_keys

TEXTS = st.text(alphabet='"\\[]{},: aé\n', max_size=6) | st.text(max_size=3)
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS | TEXTS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=40,
)
# Where a piece may end: after so many bytes, or a little later.
SIZES = st.sampled_from([1, 2, 3, 5, 8, 13, 40])


def loads(body: bytes, size: int) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_pieces, "PIECE_BYTES", size)
        return json_pieces.loads(body)


def check_json(body: bytes, size: int, expected: str) -> None:
    """Check that a body is refused for a repeated key if it has one, and else is what was expected."""
    try:
        refuse_repeated_keys(body)
    except InvalidInput:
        with pytest.raises(InvalidInput, match="a key stands twice"):
            loads(body, size)
    else:
        assert repr(loads(body, size)) == expected


@given(value=VALUES, size=SIZES, indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_pieces_hold_what_the_whole_holds(value: Any, size: int, indent: int | None, ascii_only: bool):
    body = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    # As text: 1 and 1.0 are equal, and so are true and 1.
    assert repr(loads(body, size)) == repr(orjson.loads(body))


# Repeated keys within each other, which no dictionary holds.
OBJECTS = st.recursive(
    st.sampled_from(["1", "[]", "{}", '"a"']),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda values: f"[{','.join(values)}]"),
        st.lists(st.tuples(st.sampled_from("ab"), inner), max_size=4).map(
            lambda pairs: "{" + ",".join(f'"{key}":{value}' for key, value in pairs) + "}"
        ),
    ),
    max_leaves=40,
)


@given(body=OBJECTS.map(str.encode), size=SIZES)
def test_repeated_keys_at_any_depth_are_refused_and_others_are_not(body: bytes, size: int):
    check_json(body, size, repr(orjson.loads(body)))


@given(value=VALUES, size=SIZES, data=st.data())
def test_what_is_no_json_is_none_in_pieces(value: Any, size: int, data: st.DataObject):
    body = json.dumps(value).encode()
    at = data.draw(st.integers(0, len(body)))
    cut = data.draw(st.integers(0, 2))
    body = body[:at] + data.draw(st.sampled_from([b"", *(bytes([each]) for each in b'[]{}",:\\ 1')])) + body[at + cut :]
    try:
        expected = repr(orjson.loads(body))
    except orjson.JSONDecodeError:
        with pytest.raises(InvalidInput, match="the body is not JSON"):
            loads(body, size)
        return
    check_json(body, size, expected)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": [1, 2], "b": 3, "a": [4, 5]}',
        b'{"a": 1, "b": [2], "a": [3, 4], "c": 5}',
        b'{"a": {}, "a": [1,2]}',
        b'{"a": 1, "b": [], "a": [[1, 2, 3, 4, 5, 6, 7]]}',
        b'{"a": 1, "b": {}, "a": {"c": {"d": [1, 2, 3, 4]}}}',
    ],
)
@pytest.mark.parametrize("size", [1, 4, 9, 15, 30])
def test_a_key_that_stands_twice_is_refused(body: bytes, size: int):
    with pytest.raises(InvalidInput, match="a key stands twice in one object"):
        loads(body, size)


@pytest.mark.parametrize(
    "body",
    [b"[1, 2,]", b'{"a": 1,}', b"[[1, 2],]", b"[, 1]", b'{"a": [, 1]}', b"[1, {, 2}]", b"[1, 2, ", b",[1]", b"1]"],
)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_where_a_value_is_missing_beside_a_comma_it_is_no_json(body: bytes, size: int):
    with pytest.raises(InvalidInput, match="the body is not JSON"):
        loads(body, size)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"[1, 2, 3, oops, 5]", "near byte 10"),
        (b"[1, 2, 3, , 5]", "a value is missing or too many near byte 9"),
        (b"[1, 2, 3, 4]]]", "near byte 9"),
        (b"[1, 2], [3, 4]", "more than one value"),
        (b"[[1, 2], [3, 4", "ends within one"),
    ],
)
def test_an_error_says_where(body: bytes, why: str):
    with pytest.raises(InvalidInput, match=why):
        loads(body, 4)


def test_the_pieces_are_small_and_others_go_between_them(monkeypatch: pytest.MonkeyPatch):
    sizes, given, whole = [], [], orjson.loads

    def measured(text: bytes) -> Any:
        sizes.append(len(text))
        return whole(text)

    monkeypatch.setattr(json_pieces.orjson, "loads", measured)
    monkeypatch.setattr(json_pieces, "give_way", lambda: given.append(len(sizes)))
    body = json.dumps({"inputs": [{"name": "images", "shape": [1, 28, 28], "data": [[7] * 784] * 500}]}).encode()
    assert json_pieces.loads(body)["inputs"][0]["data"] == [[7] * 784] * 500
    assert max(sizes) < 1.01 * json_pieces.PIECE_BYTES
    assert len(sizes) == pytest.approx(len(body) / json_pieces.PIECE_BYTES, rel=0.01)
    assert given == list(range(1, len(sizes) + 1))
