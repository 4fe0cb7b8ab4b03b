"""CSV of pixels: cut into blocks of lines, each parsed by NumPy as a whole.

Must not know: compression, the model.

Measured on one core with Kaggle's rows: 6.5 us a row; Arrow's reader, which makes 785 columns first, 23 us. It reads
what is not whole numbers; a block with a field that is no number at all is halved until it is found.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.csv as csv  # type: ignore[import-untyped]

from serving.errors import InvalidInput
from serving.offline.arrow import validity_of, values_of
from serving.offline.columns import Columns, columns_without_header, find_columns, parse_label, parse_number
from serving.offline.csv_lines import line_blocks, split_fields, split_rows, without_blank_lines
from serving.offline.items import NO_LABEL, Items, Place, rows_of_place
from serving.offline.pixels import PIXELS, Numbers, Scale, decide_scale, to_images, to_labels
from serving.offline.streams import Readable

# Lines that decide on the scale of the file.
SAMPLE_LINES = 100

BOM = b"\xef\xbb\xbf"
# Arrow's reader takes longer to begin than these take one by one.
FEW_ROWS = 16
ZERO, NINE = 48, 57

# What pandas writes above columns without names. No row of digits: its pixels would go beyond 255.
COUNTED = [str(number) for number in range(PIXELS + 1)]


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
        lines, fields = self.data.count(b"\n"), self.dialect.columns.count
        # Each has a digit in its pixels and an end: of blank ones Arrow's reader would make rows, 17 us each.
        are_rows = len(self.data) >= lines * (fields + PIXELS)
        values = _parse(self.data, lines, self.dialect) if are_rows else None
        if values is not None:
            names = list(map(str, range(self.first_line, self.first_line + len(values))))
            return self._items(names, values, {})
        rows = split_rows(self.data, self.dialect.separator, self.dialect.columns.count)
        names = [str(self.first_line + number) for number, _ in rows]
        return self._items(names, *_parse_rows([row for _, row in rows], self.dialect))

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


def _parse(data: bytes, count: int, dialect: Dialect) -> Numbers | None:
    """Return so many rows of numbers, shape (count, columns), or None where there is anything else."""
    values: Numbers | None = parse_whole_numbers(data, dialect)
    if values is None:
        values = parse_numbers(data, dialect)
    return values if values is not None and len(values) == count else None


def _parse_rows(rows: Sequence[bytes], dialect: Dialect) -> tuple[Numbers, dict[int, str]]:
    """Return the fields of rows as `parse_numbers` does, zeros where they are none, and why."""
    count = dialect.columns.count
    values, errors = np.zeros((len(rows), count)), dict[int, str]()

    def fill(numbers: list[int]) -> None:
        parsed = _parse(b"".join(rows[number] + b"\n" for number in numbers), len(numbers), dialect)
        if parsed is not None:
            values[numbers] = parsed
            return
        half = len(numbers) // 2
        if half > FEW_ROWS:
            fill(numbers[:half])
            fill(numbers[half:])
            return
        for number in numbers:
            values[number], error = _parse_row(rows[number], dialect)
            errors.update({number: error} if error else {})

    # Short rows cost nothing to find, and there may be thousands of them in a block.
    short = [row.count(dialect.separator) < count - 1 for row in rows]
    errors |= {number: _parse_row(rows[number], dialect)[1] for number in range(len(rows)) if short[number]}
    if not all(short):
        fill([number for number in range(len(rows)) if not short[number]])
    return values, errors


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
    if unread := dialect.columns.unread:  # they may hold larger numbers, of which the last digit is taken
        widths.reshape(-1, columns)[:, unread] = 2
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


def _parse_row(row: bytes, dialect: Dialect) -> tuple[Numbers, str]:
    """Return the fields of a row as `parse_numbers` does, shape (columns,), and why they are none."""
    whole = parse_whole_numbers(row + b"\n", dialect)
    if whole is not None:
        return whole[0], ""
    count = dialect.columns.count
    fields = split_fields(row, dialect.separator)
    if len(fields) != count:
        return np.zeros(count), f"expected {count} fields, found {len(fields)}"
    try:
        return np.array(list(map(parse_number, fields))), ""
    except ValueError:
        return _parse_fields(fields, dialect.columns)


def _parse_fields(fields: list[bytes], columns: Columns) -> tuple[Numbers, str]:
    """Do as `_parse_row` where a field is no number: it may be one that is not read, or an empty label."""
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
    first, _, rest = head.partition(b"\n")
    separator = max((b",", b";", b"\t", b"|"), key=first.count)
    fields = [field.decode("utf-8", "replace") for field in split_fields(first, separator)]
    columns, has_header = _read_first_line(fields)
    dialect = Dialect(columns, separator, 255)
    rows = split_rows(rest if has_header else head, separator, columns.count)
    parsed = (_parse_row(row, dialect) for _, row in rows[:SAMPLE_LINES])
    right = [values for values, error in parsed if not error]
    sample = np.stack(right) if right else np.empty((0, columns.count))
    if not has_header or fields == COUNTED:
        _check_label_is_first(sample, columns)
    return replace(dialect, full=decide_scale(_pixels(sample, columns), scale)), has_header


def _check_label_is_first(sample: Numbers, columns: Columns) -> None:
    """Refuse rows that end with their label: all pixels would be read shifted by one."""
    first, last = sample[:, 0], sample[:, -1]
    if columns.label == 0 and len(sample) and not first.any() and len(np.unique(last)) > 1 and not to_labels(last)[1]:
        raise InvalidInput("the labels seem to be in the last column: without a header they are expected in the first")


def _read_first_line(fields: list[str]) -> tuple[Columns, bool]:
    """Return the columns, and whether this line is a header: it names or counts them, or few fields are numbers."""
    try:
        return find_columns(fields), True
    except InvalidInput:
        numbers = sum(map(_is_number, fields))
        if numbers < 0.9 * len(fields):
            raise
    return columns_without_header(len(fields)), fields == COUNTED


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
    head, line = without_blank_lines(head.removeprefix(BOM))
    dialect, has_header = find_dialect(head, scale)
    if has_header:
        head, line = head[head.index(b"\n") + 1 :], line + 1
    for data in chain([head] if head else [], blocks):
        yield CsvBlock(place, dialect, line, data)
        line += data.count(b"\n")
