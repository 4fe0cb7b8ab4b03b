"""JSON bodies, refused where parsers differ (a repeated key, NaN) or where they cost more than their size says.

Must not know: what a body means.
"""

import json
from typing import Any, NamedTuple

import numpy as np
import orjson

from serving.errors import InvalidInput, TooLarge
from serving.heavy import PIECE_BYTES, pieces
from serving.http import json_pieces
from serving.limits import CONTAINER_VALUES, Limits

# A body of this size cannot hold so many values that they matter.
SMALL_BYTES = 65_536

# What orjson parses in 0.4 ms, during which nobody else has the interpreter.
FEW_VALUES = 32_768


class Document(NamedTuple):
    """A parsed body.

    Attributes:
        root: what it holds.
        only_numbers: every list in it that does not begin with a string or an object holds only lists, integers and
            finite floats, at any depth.
    """

    root: Any
    only_numbers: bool


def read_json(body: bytes, limits: Limits) -> Document:
    """Parse a body.

    Raises:
        InvalidInput: it is not JSON, not UTF-8, nested too deeply, or repeats a key.
        TooLarge: it holds too many values; found before it is parsed.
    """
    many = check_extent(body, limits) > FEW_VALUES
    root = json_pieces.loads(body) if many else _parse(body)
    # orjson keeps the last of two equal keys. Where all quotes belong to keys and strings that are there, none is
    # missing: 3 us for a picture as JSON, where a second parse takes 90.
    accounted = _count(body, b'"') == 2 * _count_strings(root)
    if not (accounted or many):
        refuse_repeated_keys(body)
    return Document(root, accounted and not any(_count(body, name) for name in (b"true", b"false", b"null")))


def _parse(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the body is not JSON: {error}") from error


def check_extent(body: bytes, limits: Limits) -> int:
    """Return how many values a body holds at most; 0 if it is small.

    Raises:
        InvalidInput: it is nested too deeply.
        TooLarge: it holds too many values.
    """
    opened, values = _count(body, b"[") + _count(body, b"{"), 0
    if len(body) > SMALL_BYTES:
        values = CONTAINER_VALUES * opened
        if values <= limits.json_values:
            values += _count(body, b",") + _count(body, b'"')
        if values > limits.json_values:
            _check_depth(body[:SMALL_BYTES], limits.json_depth)
            raise TooLarge(f"the body holds more JSON values than the limit of {limits.json_values}")
    # A list that follows another is not deeper than that; this alone accounts for rows of pixels.
    if opened > limits.json_depth and opened - _count(body, b"],[") - _count(body, b"], [") > limits.json_depth:
        _check_depth(body, limits.json_depth)
    return values


def _count(body: bytes, text: bytes) -> int:
    """Count a text that cannot overlap itself, in pieces: others have the interpreter between them."""
    if len(body) <= PIECE_BYTES:
        return body.count(text)
    size = PIECE_BYTES + len(text) - 1
    return sum(body.count(text, start, start + size) for start in range(0, len(body), PIECE_BYTES))


def _check_depth(body: bytes, limit: int) -> None:
    brackets = json_pieces.blank_texts(body).translate(None, json_pieces.NO_BRACKETS)
    # The codes of [ and { have the second bit set, those of ] and } do not.
    steps = (np.frombuffer(brackets, np.uint8) & 2).astype(np.int8) - 1
    if steps.cumsum(dtype=np.int32).max(initial=0) > limit:
        raise InvalidInput(f"the body is nested too deeply: more than {limit} lists and objects")


def _count_strings(value: Any) -> int:
    """Count keys and strings; those in a list that begins with a number or a list are left out."""
    if isinstance(value, str):
        return 1
    if isinstance(value, dict):
        return len(value) + sum(map(_count_strings, value.values()))
    if isinstance(value, list) and value:
        if isinstance(value[0], str):
            return sum(list(map(type, piece)).count(str) for piece in pieces(value, FEW_VALUES))
        if isinstance(value[0], dict):
            return sum(map(_count_strings, value))
    return 0


def refuse_repeated_keys(body: bytes) -> None:
    """Raise InvalidInput where JSON holds a key twice in one object."""
    json.loads(body, object_pairs_hook=_refuse_pairs)


def _refuse_pairs(pairs: list[tuple[str, Any]]) -> None:
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise InvalidInput(f"the key {key[:80]!r} stands twice in one object")
        seen.add(key)
