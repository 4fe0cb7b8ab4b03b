import json
import time
import tracemalloc

import orjson
import pytest

from serving.errors import InvalidInput, TooLarge
from serving.http import strict_json
from serving.http.strict_json import read_json
from tests.serving.fakes import LIMITS


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
        read_json(body, LIMITS)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_case_d08_a_million_brackets_are_refused_at_once(opening: bytes):
    started = time.process_time()
    with pytest.raises(InvalidInput, match="nested too deeply"):
        read_json(opening * 1_000_000, LIMITS)
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize("opening", [b"[],", b"{},", b'["[[["],', b"1,", b'"",'])
def test_millions_of_values_are_refused_before_they_cost_anything(opening: bytes):
    body = b"[" + opening * 4_000_000 + b"1]"
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(TooLarge, match="more JSON values than the limit of 3000000"):
        read_json(body, LIMITS)
    assert time.process_time() - started < 1.0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < len(body) / 2


@pytest.mark.parametrize(("value", "counted"), [(b"[],", 17), (b"{},", 17), (b'"",', 3), (b"12,", 1)])
def test_the_limit_of_values_is_exact_and_a_container_counts_as_many(value: bytes, counted: int):
    body, limit = b"[" + value * 30_000 + b"1]", 16 + counted * 30_000
    read_json(body, LIMITS._replace(json_values=limit))
    with pytest.raises(TooLarge, match=f"the limit of {limit - 1}"):
        read_json(body, LIMITS._replace(json_values=limit - 1))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 100])
def test_a_text_that_lies_across_pieces_is_counted_once(size: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(strict_json, "PIECE_BYTES", size)
    assert strict_json._count(b"[true,1,true,true]", b"true") == 3
    assert strict_json._count(b'"a""b"', b'"') == 4


def depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@pytest.mark.parametrize("text", ['"[[[["', '"\\\\"', '"\\"[[["', '"],["', '"]]]]"', "1", '{"a": []}'])
@pytest.mark.parametrize("opening", ["[", "[[], ", "[[],", '{"b": '])
@pytest.mark.parametrize("times", range(7, 12))
def test_the_limit_of_depth_is_exact_whatever_texts_hold(opening: str, text: str, times: int):
    body = opening * times + text + ("}" if opening[0] == "{" else "]") * times
    found = depth(json.loads(body))
    read_json(body.encode(), LIMITS._replace(json_depth=found))
    with pytest.raises(InvalidInput, match=f"nested too deeply: more than {found - 1}"):
        read_json(body.encode(), LIMITS._replace(json_depth=found - 1))


def test_as_many_images_as_one_request_may_hold_are_within_the_limits():
    row = b"[" + b",".join([b"255"] * 28) + b"]"
    image = b"[" + b",".join([row] * 28) + b"]"
    body = b'{"pixels": [' + b", ".join([image] * LIMITS.images) + b"]}"
    assert len(read_json(body, LIMITS).root["pixels"]) == LIMITS.images


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
        read_json(body, LIMITS)


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
    assert read_json(orjson.dumps(root), LIMITS).root == root


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
    assert read_json(body, LIMITS).only_numbers is only_numbers
