"""Lines of CSV: blocks of whole rows, rows whose quoted fields hold line breaks, the fields of a row.

Must not know: pixels.
"""

import csv
import re
from collections.abc import Iterator
from itertools import accumulate

from serving.errors import InvalidInput
from serving.offline.streams import Readable, read_until_broken

# About 560 rows of MNIST; what NumPy makes of them fits a second-level cache.
BLOCK_BYTES = 1 << 20
# More lines are no rows of MNIST, and would take thousands of times their bytes as such.
BLOCK_LINES = 1 << 12

_NOT_BLANK = re.compile(rb"\S")
# A quote at the beginning of a field that is not closed in this line.
_OPEN_QUOTE = re.compile(rb'(?:^|[,;\t|])"(?:[^"]|"")*$')


def line_blocks(stream: Readable) -> Iterator[bytes]:
    """Yield the stream as blocks of whole lines, each ended by a line feed, about `BLOCK_BYTES` or `BLOCK_LINES` long.

    Raises:
        InvalidInput: a line longer than a block.
    """
    rest = b""
    while data := read_until_broken(stream, BLOCK_BYTES):
        if b"\n" not in data:
            if len(rest) + len(data) > BLOCK_BYTES:
                raise InvalidInput(f"a line longer than {BLOCK_BYTES} bytes")
            rest += data
            continue
        data = rest + data
        end = _end_of_rows(data)
        yield from _cut(data[:end])
        rest = data[end:]
    if rest.strip():
        yield from _cut(rest + b"\n")


def _cut(data: bytes) -> Iterator[bytes]:
    """Yield lines as blocks of at most `BLOCK_LINES`, each of whole rows."""
    if data.count(b"\n") <= BLOCK_LINES:
        yield data
        return
    lines = data.split(b"\n")[:-1]
    while lines:
        height = _height_of_rows(lines[:BLOCK_LINES])
        yield b"\n".join([*lines[:height], b""])
        lines = lines[height:]


def _height_of_rows(lines: list[bytes]) -> int:
    """Return how many lines the whole rows take: all of them if a quote is not closed in so many, as a stray one."""
    quotes = accumulate(line.count(b'"') for line in lines)
    return max((height for height, found in enumerate(quotes, 1) if not found % 2), default=len(lines))


def _end_of_rows(data: bytes) -> int:
    """Return where the last whole row ends: before the line whose quote is open at the end, if there is one."""
    last = end = data.rfind(b"\n") + 1
    quotes = data.count(b'"', 0, end)
    while quotes % 2:
        start = data.rfind(b"\n", 0, data.rfind(b'"', 0, end)) + 1
        quotes -= data.count(b'"', start, end)
        end = start
    return end or last


def without_blank_lines(head: bytes) -> tuple[bytes, int]:
    """Return lines from the first that is not blank on, and its number from 1."""
    match = _NOT_BLANK.search(head)
    end = head.rfind(b"\n", 0, match.start()) + 1 if match else len(head)
    return head[end:], 1 + head.count(b"\n", 0, end)


def split_rows(data: bytes, separator: bytes, count: int) -> list[tuple[int, bytes]]:
    """Return the rows of whole lines, each with the number of its first line from 0; blank lines are no rows.

    Args:
        data: whole lines.
        separator: of the fields.
        count: of the fields of a row; without them lines are not joined, for a stray quote would swallow what follows.
    """
    lines = data.removesuffix(b"\n").split(b"\n")
    rows, number = [], 0
    while number < len(lines):
        height = _height(lines, number, separator, count) if b'"' in lines[number] else 1
        row = b"\n".join(lines[number : number + height])
        if row.strip():
            rows.append((number, row))
        number += height
    return rows


def _height(lines: list[bytes], first: int, separator: bytes, count: int) -> int:
    """Return how many lines the row has that begins at the line `first`."""
    if not lines[first].count(b'"') % 2 or not _OPEN_QUOTE.search(lines[first]):
        return 1
    quotes = accumulate(lines[number].count(b'"') for number in range(first, len(lines)))
    height = next((height for height, found in enumerate(quotes, 1) if not found % 2), 1)
    row = b"\n".join(lines[first : first + height])
    return height if len(split_fields(row, separator)) == count else 1


def split_fields(row: bytes, separator: bytes) -> list[bytes]:
    """Return the fields of a row, without the quotes around them."""
    row = row.strip(b"\r\n ")
    if b'"' not in row:
        return row.split(separator)
    text = row.decode("utf-8", "surrogateescape").splitlines(keepends=True)
    try:
        (fields,) = csv.reader(text, delimiter=separator.decode(), strict=True)
    except (csv.Error, ValueError):  # a quote or a line break astray, or a very long field
        return row.split(separator)
    return [field.encode("utf-8", "surrogateescape") for field in fields]
