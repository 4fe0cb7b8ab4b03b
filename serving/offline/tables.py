"""Parquet and Arrow: batches of pixel columns, of lists of pixels, or of encoded pictures.

Must not know: the model.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]

from serving.errors import InvalidInput
from serving.offline.arrow import validity_of, values_of
from serving.offline.columns import LABEL_NAMES, check_labels, find_pixels, parse_labels
from serving.offline.items import NO_LABEL, Items, Place, rows_of_place
from serving.offline.pictures import PICTURE_BYTES, Entry
from serving.offline.pixels import IMAGE_SHAPES, PIXELS, Numbers, Scale, decide_scale, to_images, to_labels

# Rows of one batch, and of encoded pictures, which are up to a thousand times larger and slower to read.
PIXEL_ROWS, PICTURE_ROWS = 1024, 64

Form = Literal["columns", "lists", "pictures"]


@dataclass(frozen=True, slots=True)
class Layout:
    """Which columns of a table to read, and how.

    Attributes:
        form: 784 columns, one column of lists (or of 784 raw bytes), or one of encoded pictures.
        names: the columns, in the order of the pixels.
        label: the column of labels, or None.
    """

    form: Form
    names: tuple[str, ...]
    label: str | None

    @property
    def columns(self) -> list[str]:
        """Every column that is read."""
        return [*self.names, *([self.label] if self.label else [])]


def find_layout(schema: pa.Schema) -> Layout:
    """Return how a table of this schema holds digits.

    Raises:
        InvalidInput: no pixel columns, and not exactly one column of pixels or pictures; several columns of labels; or
            one that is read has the name of another.
    """
    fields = list(schema)
    labels = [field.name for field in fields if field.name.lower() in LABEL_NAMES and _may_be_label(field.type)]
    form, names = _find_pixels(fields)
    layout = Layout(form, names, labels[0] if labels else None)
    counts = Counter(schema.names)
    if repeated := [name for name in layout.columns if counts[name] > 1]:
        raise InvalidInput(f"more than one column is named {repeated[0]!r}")
    check_labels(labels)
    return layout


def _find_pixels(fields: list[pa.Field]) -> tuple[Form, tuple[str, ...]]:
    try:
        pixels = [fields[position] for position in find_pixels([field.name for field in fields])]
        if not all(_is_number(field.type) for field in pixels):
            raise InvalidInput("the pixel columns hold no numbers")
        return "columns", tuple(field.name for field in pixels)
    except InvalidInput:
        candidates = _find_candidates(fields)
        if len(candidates) != 1:
            raise
    ((name, form),) = candidates.items()
    return form, (name,)


def _find_candidates(fields: list[pa.Field]) -> dict[str, Form]:
    """Return the columns that may hold whole images, by name."""
    candidates = {field.name: form for field in fields if (form := _form(field.type))}
    if len(candidates) > 1:
        candidates = {name: form for name, form in candidates.items() if name.lower() in {"image", "pixels", "picture"}}
    return candidates


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _may_be_label(kind: pa.DataType) -> bool:
    """Tell whether a type holds numbers, or what may be text of numbers; others are no labels, whatever their name."""
    if pa.types.is_dictionary(kind):
        return _may_be_label(kind.value_type)
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return bool(_is_number(kind) or text or pa.types.is_decimal(kind) or pa.types.is_null(kind))


def _form(kind: pa.DataType) -> Form | None:
    if _is_list(kind):
        return (
            "lists" if _is_number(kind.value_type) or (_is_list(kind.value_type) and _form(kind.value_type)) else None
        )
    if pa.types.is_fixed_size_binary(kind) and kind.byte_width == PIXELS:
        return "lists"
    if pa.types.is_struct(kind):
        parts = [field.type for field in kind if field.name == "bytes"]
        return "pictures" if len(parts) == 1 and _is_binary(parts[0]) else None
    return "pictures" if _is_binary(kind) else None


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


@dataclass(frozen=True, slots=True)
class TableRows:
    """Rows of pixels of one table; `first` is the number of the first one, `full` the value of full ink."""

    place: Place
    layout: Layout
    first: int
    batch: pa.RecordBatch
    full: int

    def decode(self) -> Items:
        """Return the rows as items named by their number from 0."""
        labels, errors = _labels(self.batch, self.layout)
        rows, missing = read_pixels(self.batch, self.layout)
        images, out_of_range = to_images(rows, self.full)
        names = _row_names(self.batch, self.first)
        return rows_of_place(self.place, names, images, labels, errors | out_of_range | missing)


def _row_names(batch: pa.RecordBatch, first: int) -> list[str]:
    return list(map(str, range(first, first + batch.num_rows)))


def _pictures(place: Place, layout: Layout, first: int, batch: pa.RecordBatch) -> Iterator[Entry]:
    """Yield the encoded pictures of a batch, named by their number from 0; `first` is that of the first one."""
    labels, errors = _labels(batch, layout)
    column = batch.column(layout.names[0])
    if pa.types.is_struct(column.type):
        column = pc.struct_field(column, "bytes")  # null where the struct is, whatever lies below
    errors |= {int(row): f"more than {PICTURE_BYTES} bytes" for row in np.flatnonzero(_lengths(column) > PICTURE_BYTES)}
    for row, (name, label) in enumerate(zip(_row_names(batch, first), labels.tolist(), strict=True)):
        # One at a time, and none that is not decoded: what waits is bounded by what has been copied.
        picture = b"" if row in errors else column[row].as_py() or b""
        yield Entry(place.ordinal, place.source, name, label, picture, errors.get(row))


def _lengths(column: pa.Array) -> Numbers:
    """Return how many bytes each value has, shape (N,), 0 for null."""
    if pa.types.is_binary_view(column.type):  # whose length Arrow 26 does not tell: it is first in each view
        # Behind the views a broken file may have any number of bytes.
        views = np.frombuffer(column.buffers()[1] or b"", np.int32, 4 * len(column), 16 * column.offset)
        lengths = views[::4]
    else:
        lengths = values_of(pc.binary_length(column))
    return np.where(validity_of(column), lengths, 0)


def _labels(batch: pa.RecordBatch, layout: Layout) -> tuple[npt.NDArray[np.int8], dict[int, str]]:
    """Return labels as int8, shape (N,), -1 for null, and why some are wrong."""
    if layout.label is None:
        return np.full(batch.num_rows, NO_LABEL, np.int8), {}
    column = batch.column(layout.label)
    if not _is_number(column.type):
        return parse_labels(column.to_pylist(), layout.label)
    present = validity_of(column)
    labels, errors = to_labels(np.where(present, values_of(column), 0))
    labels[~present] = NO_LABEL
    return labels, errors


def read_pixels(batch: pa.RecordBatch, layout: Layout) -> tuple[Numbers, dict[int, str]]:
    """Return the pixels of a batch, shape (N, 784), zeros where there are none, and why."""
    if layout.form == "lists":
        return _read_lists(batch.column(layout.names[0]))
    columns = [batch.column(name) for name in layout.names]
    errors: dict[int, str] = {}
    for name, column in zip(layout.names, columns, strict=True):
        if column.null_count:
            errors |= {int(row): f"{name} is null" for row in np.flatnonzero(~validity_of(column))}
    rows = np.stack([values_of(column) for column in columns], axis=1)
    rows[list(errors)] = 0
    return rows, errors


def _read_lists(column: pa.Array) -> tuple[Numbers, dict[int, str]]:
    """Return lists of pixels, nested by row or flat, as an array of shape (N, 784)."""
    count = len(column)
    if pa.types.is_fixed_size_binary(column.type):
        data = np.frombuffer(column.buffers()[1] or b"", np.uint8)[column.offset * PIXELS :]
        missing = np.flatnonzero(~validity_of(column)).tolist()
        return data[: count * PIXELS].reshape(count, PIXELS), dict.fromkeys(missing, "expected 784 pixels, found null")
    flat, shape = column, list[int]()
    while _is_list(flat.type) and not flat.null_count and len(lengths := pc.list_value_length(flat).unique()) == 1:
        shape.append(lengths[0].as_py())
        flat = flat.flatten()
    if not _is_list(flat.type) and tuple(shape) in IMAGE_SHAPES and not flat.null_count:
        return values_of(flat).reshape(count, PIXELS), {}
    return _read_each_list(column)


def _read_each_list(column: pa.Array) -> tuple[Numbers, dict[int, str]]:
    rows, errors = np.zeros((len(column), PIXELS)), {}
    for position, value in enumerate(column.to_pylist()):
        try:
            row = np.asarray(value, np.float64)
        except (ValueError, TypeError):
            errors[position] = "expected 784 pixels, found lists of unequal lengths"
            continue
        if row.shape in IMAGE_SHAPES:
            rows[position] = row.reshape(-1)
        else:
            errors[position] = f"expected 784 pixels, found {_describe_shape(value, row.shape)}"
    return rows, errors


def _describe_shape(value: object, shape: tuple[int, ...]) -> str:
    return "null" if value is None else " x ".join(map(str, shape))


def table_pieces(batches: Iterator[pa.RecordBatch], place: Place, scale: Scale) -> Iterator[TableRows | Entry]:
    """Yield the tasks of a table of pixels, or the pictures of one.

    Args:
        batches: of one schema, each of any size.
        place: the source.
        scale: see `decide_scale`.

    Raises:
        InvalidInput: no columns of digits.
        pyarrow.ArrowInvalid: a broken file.
    """
    first, full, layout = 0, 0, None
    for whole in batches:
        # Arrow trusts offsets and lengths, and would read outside the file.
        whole.validate(full=True)
        layout = layout or find_layout(whole.schema)
        if layout.form == "pictures":
            for batch in _parts(whole, PICTURE_ROWS):
                yield from _pictures(place, layout, first, batch)
                first += batch.num_rows
            continue
        for batch in _parts(whole, PIXEL_ROWS):
            full = full or decide_scale(read_pixels(batch, layout)[0], scale)
            yield TableRows(place, layout, first, batch, full)
            first += batch.num_rows


def _parts(batch: pa.RecordBatch, rows: int) -> Iterator[pa.RecordBatch]:
    return (batch.slice(offset, rows) for offset in range(0, batch.num_rows, rows))
