"""Multipart bodies, taken apart in memory.

Must not know: what the parts hold.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serving.errors import InvalidInput, TooLarge
from serving.heavy import pieces

# RFC 2046, section 5.1.1: up to 70 of these characters, and white space behind them.
BOUNDARY = re.compile(rb"--([0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-])[ \t]*+\r?\n")
REST_OF_BOUNDARY = re.compile(rb"[ \t]*+\r\n")

# Of a content type: more than a type with its boundary takes. 32 KB of empty parameters took the event loop 10 ms.
LONGEST_TYPE = 1_000

# Of a part, in the longest lines that its headers may have; the parser takes eight lines, and refuses what is longer.
MAX_HEAD_LINES = 32

EMPTY_LINE = b"\r\n\r\n"

# Of a body between which others have the interpreter: about a dozen small pictures.
PIECE_BYTES = 16_384


class Part(NamedTuple):
    """One part: its file name, else the name of its field, or nothing, and its bytes."""

    name: str
    data: bytes


class _Collector:
    """Gathers the parts that the parser finds."""

    def __init__(self, max_parts: int):
        self.parts: list[Part] = []
        self._max_parts = max_parts
        self._chunks: list[bytes] = []
        self._field = self._value = b""
        self._name = ""

    def callbacks(self) -> "dict[str, object]":
        return {name: getattr(self, name) for name in dir(self) if name.startswith("on_")}

    def on_part_begin(self) -> None:
        if len(self.parts) >= self._max_parts:
            raise TooLarge(f"more than {self._max_parts} parts")
        self._chunks, self._name = [], ""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._name = (options.get(b"filename") or options.get(b"name") or b"").decode("utf-8", "replace")
        self._field = self._value = b""

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._chunks.append(data[start:end])

    def on_part_end(self) -> None:
        self.parts.append(Part(self._name, b"".join(self._chunks)))


def boundary_of(content_type: str, body: bytes) -> bytes | None:
    """Return the boundary that the content type declares, or that the body begins with, or None for another kind."""
    kind, options = parse_options_header(content_type[:LONGEST_TYPE])
    found = BOUNDARY.match(body)
    if found:
        return found[1]
    declared = options.get(b"boundary")
    return declared if kind.startswith(b"multipart/") and declared and b"--" + declared in body else None


def read_form(body: bytes, boundary: bytes, max_parts: int, max_header_bytes: int) -> list[Part]:
    """Return the parts of a multipart body, in their order.

    Raises:
        InvalidInput: it is no whole multipart body, or a header line of a part is longer than `max_header_bytes`.
        TooLarge: more than `max_parts` parts.
    """
    delimiter = b"--" + boundary
    start = _first(body, delimiter)
    # The parser takes a microsecond for each step; this, for 30,000 parts, one in all.
    # From the first boundary on: each further one ends a part.
    if body.count(b"\n" + delimiter, start) > max_parts:
        raise TooLarge(f"more than {max_parts} parts")
    body = _unfold(body[start:], delimiter, MAX_HEAD_LINES * max_header_bytes)
    collector = _Collector(max_parts)
    ended = []
    callbacks = collector.callbacks() | {"on_end": lambda: ended.append(True)}
    try:
        parser = MultipartParser(boundary, callbacks, max_header_size=max_header_bytes)  # type: ignore[arg-type]
        for piece in pieces(body, PIECE_BYTES):
            parser.write(piece)
        parser.finalize()
    except FormParserError as error:
        raise InvalidInput(f"the multipart body is malformed: {error}") from error
    if not ended:
        raise InvalidInput("the multipart body ends before its last boundary")
    return collector.parts


def _first(body: bytes, delimiter: bytes) -> int:
    """Return where the first boundary is, at the start of a line; 0 where no part follows it.

    Source: RFC 2046, section 5.1.1, for the text before it, which is to be ignored.
    """
    first = body.find(delimiter)
    if first > 0 and body[first - 1] not in b"\r\n":
        first = body.find(b"\n" + delimiter, first) + 1
    return 0 if first < 0 or body.startswith(b"--", first + len(delimiter)) else first


def _unfold(body: bytes, delimiter: bytes, max_head_bytes: int) -> bytes:
    """Return a body with each header of a part on one line, and no white space behind a boundary.

    A head of more than `max_head_bytes` stays as it is, to be refused.

    Source: RFC 822, section 3.1.1, for folded lines: the line break goes, the white space stays.
    """
    made: list[bytes] = []
    kept = 0
    for start, stop in _heads(body, delimiter):
        if stop - start > max_head_bytes:
            continue
        head = body[start:stop]
        lines = head.lstrip(b" \t")
        plain = lines[:2] + lines[2:].replace(b"\r\n ", b" ").replace(b"\r\n\t", b"\t")
        if plain != head:
            made += [body[kept:start], plain]
            kept = stop
    return b"".join([*made, body[kept:]]) if made else body


def _heads(body: bytes, delimiter: bytes) -> Iterator[tuple[int, int]]:
    """Yield of each part where its head starts, right behind the boundary, and stops, before the empty line."""
    start = len(delimiter)
    while True:
        if REST_OF_BOUNDARY.match(body, start):
            stop = body.find(EMPTY_LINE, start)
            if stop < 0:
                return
            yield start, stop
            start = stop + len(EMPTY_LINE)
        found = body.find(b"\r\n" + delimiter, start)
        if found < 0:
            return
        start = found + 2 + len(delimiter)
