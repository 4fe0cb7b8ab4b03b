"""CSV of pixels: cut into blocks of lines, each parsed by NumPy as a whole.

Must not know: compression, the model.

Measured on one core with Kaggle's rows: 6.5 us a row; Arrow's reader, which makes 785 columns first, 23 us. It reads
what is not whole numbers; a block with a field that is no number at all is read line by line, to say which.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.csv as csv  # type: ignore[import-untyped]

from serving.errors import InvalidInput
from serving.offline.arrow import validity_of, values_of
from serving.offline.columns import Columns, columns_without_header, find_columns, parse_label, parse_number
from serving.offline.items import NO_LABEL, Items, Place, rows_of_place
from serving.offline.pixels import Numbers, Scale, decide_scale, to_images, to_labels
from serving.offline.streams import Readable, read_fully

# About 560 rows of MNIST; what NumPy makes of them fits a second-level cache.
BLOCK_BYTES = 1 << 20

# Lines that decide on the scale of the file.
SAMPLE_LINES = 100

NOT_BLANK = re.compile(rb"\S")
BOM = b"\xef\xbb\xbf"
ZERO, NINE = 48, 57


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the rows of one file are written: columns, separator, value of full ink."""

    columns: Columns
    separator: bytes
    full: int


@dataclass(frozen=True, slots=True)
class CsvBlock:
    """Whole lines of a CSV file; `first_line` counts from 1, the header included."""

    place: Place
    dialect: Dialect
    first_line: int
    data: bytes

    def decode(self) -> Items:
        """Return the lines as items named by their line number; blank lines are no items."""
        values: Numbers | None = parse_whole_numbers(self.data, self.dialect)
        if values is None:
            values = parse_numbers(self.data, self.dialect)
        if values is None:
            return self._decode_line_by_line()
        names = list(map(str, range(self.first_line, self.first_line + len(values))))
        return self._items(names, values, {})

    def _decode_line_by_line(self) -> Items:
        names: list[str] = []
        rows: list[Numbers] = []
        errors: dict[int, str] = {}
        for number, line in enumerate(_lines(self.data), self.first_line):
            if not line.strip():
                continue
            row, error = _parse_line(line, self.dialect)
            if error:
                errors[len(rows)] = error
            names.append(str(number))
            rows.append(row)
        values = np.stack(rows) if rows else np.empty((0, self.dialect.columns.count))
        return self._items(names, values, errors)

    def _items(self, names: list[str], values: Numbers, errors: dict[int, str]) -> Items:
        columns = self.dialect.columns
        images, out_of_range = to_images(_pixels(values, columns), self.dialect.full)
        labels: npt.NDArray[np.int8] | None = None
        wrong_labels: dict[int, str] = {}
        if columns.label is not None:
            labels, wrong_labels = to_labels(values[:, columns.label])
            labels[list(errors)] = NO_LABEL
        return rows_of_place(self.place, names, images, labels, wrong_labels | out_of_range | errors)


def _pixels(values: Numbers, columns: Columns) -> Numbers:
    first, last = columns.pixels[0], columns.pixels[-1]
    if columns.pixels == tuple(range(first, last + 1)):
        return values[:, first : last + 1]
    return values[:, list(columns.pixels)]


def parse_whole_numbers(data: bytes, dialect: Dialect) -> npt.NDArray[np.uint8] | None:
    """Return lines of numbers from 0 to 255 as uint8, shape (lines, columns), or None if anything else is in them.

    Args:
        data: whole lines, each ended by a line feed.
        dialect: the separator and the number of columns.
    """
    text = np.frombuffer(data.replace(b"\r\n", b"\n") if b"\r" in data else data, np.uint8)
    digits = text - np.uint8(ZERO)
    is_end = digits > NINE - ZERO
    ends = np.flatnonzero(is_end)
    columns = dialect.columns.count
    if not _is_table(text, ends, columns, dialect.separator):
        return None
    widths = np.diff(ends, prepend=-1)
    if widths.min() < 2 or widths.max() > 4:
        return None
    values = digits.take(ends - 1)
    long = np.flatnonzero(widths > 2)
    long_ends = ends.take(long)
    large = digits.take(long_ends - 2).astype(np.uint16) * 10 + values.take(long)
    hundreds = digits.take(long_ends - 3).astype(np.uint16)
    large += np.where(widths.take(long) > 3, hundreds, 0).astype(np.uint16) * 100
    if large.max(initial=0) > 255:
        return None
    values[long] = large.astype(np.uint8)
    return values.reshape(-1, columns)


def parse_numbers(data: bytes, dialect: Dialect) -> npt.NDArray[np.float64] | None:
    """Return lines of any numbers as float64, shape (lines, columns), or None if anything else is in what is read.

    The label is NaN where it is empty; a column that is neither label nor pixel holds anything.

    Args:
        data: whole lines.
        dialect: the separator and the columns.
    """
    columns = dialect.columns
    names = [str(position) for position in range(columns.count)]
    read = [names[position] for position in columns.read]
    try:
        table = csv.read_csv(
            pa.BufferReader(data),
            csv.ReadOptions(column_names=names, use_threads=False, block_size=len(data) + 1),
            csv.ParseOptions(delimiter=dialect.separator.decode(), ignore_empty_lines=False),
            csv.ConvertOptions(column_types=dict.fromkeys(read, pa.float64()), include_columns=read, null_values=[""]),
        )
    except pa.ArrowInvalid:
        return None
    values = np.zeros((table.num_rows, columns.count))
    for position, column in zip(columns.read, table.columns, strict=True):
        if column.null_count and position != columns.label:
            return None
        values[:, position] = values_of(column.chunk(0))
        if column.null_count:
            values[~validity_of(column.chunk(0)), position] = np.nan
    return values


def _is_table(text: npt.NDArray[np.uint8], ends: npt.NDArray[np.intp], columns: int, separator: bytes) -> bool:
    """Tell whether every line has its number of fields, parted by the separator alone."""
    if len(ends) % columns:
        return False
    found = text.take(ends).reshape(-1, columns)
    return bool((found[:, :-1] == separator[0]).all() and (found[:, -1] == ord("\n")).all())


def _lines(data: bytes) -> list[bytes]:
    return data.removesuffix(b"\n").split(b"\n")


def _parse_line(line: bytes, dialect: Dialect) -> tuple[Numbers, str]:
    """Return the fields of a line as `parse_numbers` does, shape (columns,), and why they are none."""
    count = dialect.columns.count
    fields = line.strip(b"\r\n ").split(dialect.separator)
    if len(fields) != count:
        return np.zeros(count), f"expected {count} fields, found {len(fields)}"
    try:
        return np.array(list(map(parse_number, fields))), ""
    except ValueError:
        return _parse_fields(fields, dialect.columns)


def _parse_fields(fields: list[bytes], columns: Columns) -> tuple[Numbers, str]:
    """Do as `_parse_line` where a field is no number: it may be one that is not read, or an empty label."""
    values = np.zeros(columns.count)
    for position in columns.read:
        parse = parse_label if position == columns.label else parse_number
        try:
            values[position] = parse(fields[position])
        except ValueError:
            return np.zeros(columns.count), _describe_field(position + 1, fields[position])
    return values, ""


def _describe_field(number: int, field: bytes) -> str:
    shown = field[:20].decode("utf-8", "replace")
    return f"field {number} is {shown!r}, expected a number" if shown else f"field {number} is empty"


def _is_number(field: str) -> bool:
    try:
        parse_number(field.encode())
    except ValueError:
        return False
    return True


def find_dialect(head: bytes, scale: Scale) -> tuple[Dialect, bool]:
    """Return how the rows are written, and whether the first line is a header.

    Args:
        head: whole lines from the beginning of the file, at least one.
        scale: see `decide_scale`.

    Raises:
        InvalidInput: no table of digits.
    """
    lines = _lines(head)
    first = lines[0].strip(b"\r\n ")
    separator = max((b",", b";", b"\t", b"|"), key=first.count)
    columns, has_header = _read_first_line([field.decode("utf-8", "replace") for field in first.split(separator)])
    dialect = Dialect(columns, separator, 255)
    parsed = (_parse_line(line, dialect) for line in lines[has_header : has_header + SAMPLE_LINES] if line.strip())
    right = [values for values, error in parsed if not error]
    sample = _pixels(np.stack(right), columns) if right else np.empty((0, 784))
    return replace(dialect, full=decide_scale(sample, scale)), has_header


def _read_first_line(fields: list[str]) -> tuple[Columns, bool]:
    """Return the columns, and whether this line is a header: it names the pixels, or few of its fields are numbers."""
    try:
        return find_columns(fields), True
    except InvalidInput:
        numbers = sum(map(_is_number, fields))
        if numbers < 0.9 * len(fields):
            raise
    return columns_without_header(len(fields)), False


def csv_tasks(stream: Readable, place: Place, scale: Scale) -> Iterator[CsvBlock]:
    """Yield the tasks of a CSV stream.

    Args:
        stream: at its first byte.
        place: the source.
        scale: see `decide_scale`.

    Raises:
        InvalidInput: no table of digits.
    """
    blocks = line_blocks(stream)
    head = next(blocks, b"")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InvalidInput("UTF-16 text, expected UTF-8")
    head, line = _without_blank_lines(head.removeprefix(BOM))
    dialect, has_header = find_dialect(head, scale)
    if has_header:
        head, line = head[head.index(b"\n") + 1 :], line + 1
    for data in chain([head] if head else [], blocks):
        yield CsvBlock(place, dialect, line, data)
        line += data.count(b"\n")


def _without_blank_lines(head: bytes) -> tuple[bytes, int]:
    """Return lines from the first that is not blank on, and its number from 1."""
    match = NOT_BLANK.search(head)
    end = head.rfind(b"\n", 0, match.start()) + 1 if match else len(head)
    return head[end:], 1 + head.count(b"\n", 0, end)


def line_blocks(stream: Readable) -> Iterator[bytes]:
    """Yield the stream as blocks of whole lines, each ended by a line feed, about `BLOCK_BYTES` long.

    Raises:
        InvalidInput: a line longer than a block.
    """
    rest = b""
    while data := read_fully(stream, BLOCK_BYTES):
        end = data.rfind(b"\n") + 1
        if not end:
            if len(rest) + len(data) > BLOCK_BYTES:
                raise InvalidInput(f"a line longer than {BLOCK_BYTES} bytes")
            rest += data
            continue
        yield rest + data[:end]
        rest = data[end:]
    if rest.strip():
        yield rest + b"\n"
