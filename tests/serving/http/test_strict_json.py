import time

import orjson
import pytest

from serving.errors import InvalidInput
from serving.http.strict_json import read_json


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nul",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e400}',
        b"[1,]",
        b"{'a': 1}",
        b'{"a": "\\ud800"}',
        b'\xef\xbb\xbf{"a": 1}',
        '{"a": 1}'.encode("utf-16"),
        b'{"a": "\xff"}',
        b"{} {}",
    ],
)
def test_case_d08_what_is_not_json_is_refused(body: bytes):
    with pytest.raises(InvalidInput, match="the body is not JSON"):
        read_json(body)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_case_d08_a_million_brackets_are_refused_at_once(opening: bytes):
    started = time.perf_counter()
    with pytest.raises(InvalidInput, match="the body is not JSON"):
        read_json(opening * 1_000_000)
    assert time.perf_counter() - started < 1.0


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1, "a": 2}',
        b'{"a": 1, "b": {"c": 1, "c": "x"}}',
        b'{"a": [{"c": [1, 2], "c": [3]}]}',
        b'{"a": [[{"c": 1, "c": 2}]]}',
        b'{"a": [1, {"c": 1, "c": 2}]}',
        b'{"\\"": 1, "\\"": 2}',
        b'{"a": 1, "\\u0061": 2}',
    ],
)
def test_case_d08_a_key_that_stands_twice_is_refused(body: bytes):
    with pytest.raises(InvalidInput, match="stands twice in one object"):
        read_json(body)


@pytest.mark.parametrize(
    "root",
    [
        {"a": 'a "quoted" text \\" and more', "b": ["x", 'y"', "z"]},
        {"a": [1, "b", {"c": "d"}], "e": [[["f"]]]},
        {"a": [{"b": "c"}, 5, "d"], "e": [], "": ""},
        ["a", {"b": 1}, 5, None],
        "text",
        5,
        None,
    ],
)
def test_json_is_read_as_it_is(root: object):
    assert read_json(orjson.dumps(root)).root == root


def test_nesting_that_only_the_second_parse_finds_too_deep_is_refused():
    body = b'{"a": "\\"", "b": ' + b"[" * 1010 + b"]" * 1010 + b"}"
    with pytest.raises(InvalidInput, match="nested too deeply"):
        read_json(body)


@pytest.mark.parametrize(
    ("body", "only_numbers"),
    [
        (b'{"data": [1, 2.5, [3]], "name": "images", "shape": [1]}', True),
        (b'{"data": [1, "2"]}', False),
        (b'{"data": [[1, "2"]]}', False),
        (b'{"data": [1, true]}', False),
        (b'{"data": [1, false]}', False),
        (b'{"data": [1, null]}', False),
        (b'{"data": [1, {"a": 2}]}', False),
    ],
)
def test_only_numbers_is_said_of_lists_that_hold_nothing_else(body: bytes, only_numbers: bool):
    assert read_json(body).only_numbers is only_numbers
