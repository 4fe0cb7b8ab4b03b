"""From the kept rows to the output: Parquet, CSV, JSON Lines, Kaggle's submission.

Must not know: input formats, the model.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]

from serving.errors import ServingError
from serving.offline.arrow import numbers, texts

Format = Literal["parquet", "csv", "jsonl", "kaggle"]
SUFFIXES: dict[str, Format] = {".parquet": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}

# Rows of one Parquet row group: Arrow's own advice is 64 Ki to 1 Mi; all are in memory until the group is full.
GROUP_ROWS = 65_536

COLUMNS = ("source", "item", "digit", "confidence", "accepted", "reasons", "label", "error")
PROBABILITIES = tuple(f"p{digit}" for digit in range(10))


@dataclass(frozen=True)
class Form:
    """What the output looks like.

    Attributes:
        format: of the file.
        probabilities: whether there are columns p0 to p9.
        fallback_label: Kaggle's label for an item without a digit; None refuses such items.
    """

    format: Format
    probabilities: bool
    fallback_label: int | None


def write_output(batches: Iterable[pa.RecordBatch], form: Form, path: Path) -> None:
    """Write the rows to `path`, which is complete and on the disk when this returns.

    Args:
        batches: of `rows.SCHEMA`, in order.
        form: of the output.
        path: of a new file.

    Raises:
        ServingError: Kaggle's form cannot hold an item without a digit.
        OSError: the disk is full.
    """
    with path.open("wb") as file:
        _WRITERS[form.format](_tables(batches), form, file)
        file.flush()
        os.fsync(file.fileno())


def _tables(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, pa.Table]]:
    """Yield the rows in groups, each with the number of its first row."""
    waiting: list[pa.RecordBatch] = []
    first = count = 0
    for batch in batches:
        waiting.append(batch)
        count += batch.num_rows
        if count >= GROUP_ROWS:
            yield first, pa.Table.from_batches(waiting)
            first, count, waiting = first + count, 0, []
    if waiting:
        yield first, pa.Table.from_batches(waiting)


def _typed(first: int, table: pa.Table, form: Form) -> pa.Table:
    columns = {"row": numbers(np.arange(first, first + table.num_rows)), **{name: table[name] for name in COLUMNS}}
    if form.probabilities:
        indices = numbers(np.arange(10))
        columns |= {
            name: pc.list_element(table["probabilities"], index)
            for name, index in zip(PROBABILITIES, indices, strict=True)
        }
    return pa.table(columns)


def _flat(first: int, table: pa.Table, form: Form) -> pa.Table:
    """Return the table with the reasons as text, parted by semicolons."""
    typed = _typed(first, table, form)
    joined = pc.binary_join(typed["reasons"], texts([";"])[0])
    return typed.set_column(typed.schema.get_field_index("reasons"), "reasons", joined)


def _none() -> pa.Table:
    from serving.offline.rows import SCHEMA

    return pa.Table.from_batches([], SCHEMA)


def _write_parquet(tables: Iterator[tuple[int, pa.Table]], form: Form, file: BinaryIO) -> None:
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    with pq.ParquetWriter(file, _typed(0, _none(), form).schema, compression="zstd") as writer:
        for first, table in tables:
            writer.write_table(_typed(first, table, form), row_group_size=GROUP_ROWS)


def _write_csv(tables: Iterator[tuple[int, pa.Table]], form: Form, file: BinaryIO) -> None:
    import pyarrow.csv as csv  # type: ignore[import-untyped]

    with csv.CSVWriter(file, _flat(0, _none(), form).schema) as writer:
        for first, table in tables:
            writer.write_table(_flat(first, table, form))


def _write_jsonl(tables: Iterator[tuple[int, pa.Table]], form: Form, file: BinaryIO) -> None:
    import orjson

    for first, table in tables:
        typed = _typed(first, table, form)
        names, columns = typed.column_names, [_plain(column) for column in typed.columns]
        file.writelines(orjson.dumps(dict(zip(names, row, strict=True))) + b"\n" for row in zip(*columns, strict=True))


def _plain(column: pa.ChunkedArray) -> list[Any]:
    """Return a column as Python values, single-precision numbers in as few digits as tell them apart."""
    if not pa.types.is_float32(column.type):
        values: list[Any] = column.to_pylist()
        return values
    return [None if text is None else float(text) for text in pc.cast(column, pa.string()).to_pylist()]


def _write_kaggle(tables: Iterator[tuple[int, pa.Table]], form: Form, file: BinaryIO) -> None:
    file.write(b"ImageId,Label\n")
    for first, table in tables:
        digits = table["digit"].to_pylist()
        if None in digits and form.fallback_label is None:
            position = digits.index(None)
            raise ServingError(
                f"row {first + position} has no digit ({table['error'][position].as_py() or 'nothing is written'}); "
                "a submission needs one for each item: give --fallback-label"
            )
        labels = (form.fallback_label if digit is None else digit for digit in digits)
        file.write("".join(f"{number},{label}\n" for number, label in enumerate(labels, first + 1)).encode())


_WRITERS: dict[Format, Callable[[Iterator[tuple[int, pa.Table]], Form, BinaryIO], None]] = {
    "parquet": _write_parquet,
    "csv": _write_csv,
    "jsonl": _write_jsonl,
    "kaggle": _write_kaggle,
}
