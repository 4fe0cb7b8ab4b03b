"""Parquet and Arrow files: batches of rows, within bounds of what is held.

Must not know: what the columns hold beyond their layout.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from serving.errors import InvalidInput
from serving.offline.archives import MAX_RATIO, RATIO_FREE_BYTES
from serving.offline.sniff import Kind
from serving.offline.tables import PICTURE_ROWS, PIXEL_ROWS, Layout, find_layout

# Parquet reads each column through a buffer of this size instead of a row group at once.
COLUMN_BUFFER_BYTES = 1 << 16
# Encoded pictures of one batch: four of the largest, and a hundred thousand of MNIST.
BATCH_BYTES = 256 << 20
# An Arrow file up to this size is read and not mapped: the system ends the process where a mapped file has become
# shorter, or cannot be read. Of a larger one a single batch may not fit into memory.
UNMAPPED_BYTES = 256 << 20


def parquet_batches(path: Path) -> Iterator[tuple[pa.RecordBatch, float]]:
    """Yield the batches of a Parquet file, each with the share of the file that is read by then, 0 to 1.

    One batch is held, however large the row groups are; of pictures, one page as well, whatever its size.

    Raises:
        InvalidInput: no columns of digits, or ones that are packed `MAX_RATIO` times.
        OSError: a broken file.
    """
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=COLUMN_BUFFER_BYTES) as file:
        layout = find_layout(file.schema_arrow)
        rows = 0
        pictures = layout.form == "pictures"
        size = path.stat().st_size
        for batch in _batches_of_pictures(file, layout, size) if pictures else _batches_of_pixels(file, layout, size):
            rows += batch.num_rows
            # A broken file may promise fewer rows than it holds, or none.
            yield batch, rows / max(rows, file.metadata.num_rows, 1)


def _batches(file: pq.ParquetFile, layout: Layout, rows: int = PIXEL_ROWS, **which: Any) -> Iterator[pa.RecordBatch]:
    yield from file.iter_batches(rows, columns=layout.columns, use_threads=False, **which)


def _batches_of_pixels(file: pq.ParquetFile, layout: Layout, file_bytes: int) -> Iterator[pa.RecordBatch]:
    # A page of each of 784 columns is held, and a page may be all that its column has.
    unpacked_bytes = sum(
        max(file.metadata.row_group(number).total_byte_size, 1) for number in range(file.num_row_groups)
    )
    if unpacked_bytes > max(RATIO_FREE_BYTES, MAX_RATIO * file_bytes):
        raise InvalidInput(f"unpacks to more than {MAX_RATIO} times its size")
    yield from _batches(file, layout)


def _batches_of_pictures(file: pq.ParquetFile, layout: Layout, file_bytes: int) -> Iterator[pa.RecordBatch]:
    left = max(RATIO_FREE_BYTES, MAX_RATIO * file_bytes)
    for number in range(file.num_row_groups):
        # What the file says of each column would be closer; but where that is broken, Arrow 26 ends the process.
        unpacked_bytes = max(file.metadata.row_group(number).total_byte_size, 1)
        left -= unpacked_bytes
        if left < 0:
            raise InvalidInput(f"unpacks to more than {MAX_RATIO} times its size")
        # Every row may be the largest value of the dictionary, and that as large as all that is unpacked.
        rows = min(max(BATCH_BYTES // unpacked_bytes, 1), PICTURE_ROWS)
        yield from _batches(file, layout, rows, row_groups=[number])


def arrow_batches(path: Path, kind: Kind) -> Iterator[tuple[pa.RecordBatch, float]]:
    """Yield the batches of an Arrow file (Feather version 2) or stream, each with the share that is read by then.

    Raises:
        OSError: a broken file.
    """
    is_small = path.stat().st_size <= UNMAPPED_BYTES
    with pa.OSFile(str(path)) if is_small else pa.memory_map(str(path)) as source:
        if kind == "arrow_stream":
            for batch in pa.ipc.open_stream(source):
                yield batch, source.tell() / source.size()
            return
        reader = pa.ipc.open_file(source)
        for position in range(reader.num_record_batches):
            yield reader.get_batch(position), (position + 1) / reader.num_record_batches
