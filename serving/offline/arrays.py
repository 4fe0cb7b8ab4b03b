"""IDX and NPY: arrays read row by row from a stream.

Must not know: archives, the model.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
import numpy.lib.format as npy
import numpy.typing as npt

from serving.errors import InvalidInput
from serving.offline.columns import parse_labels
from serving.offline.items import Items, Place, rows_of_place
from serving.offline.pixels import PIXELS, Numbers, Scale, count_images, decide_scale, to_images, to_labels
from serving.offline.streams import BROKEN, Readable, read_fully, read_until_broken

# Rows of one task: large enough that its journal entry costs nothing, small enough to keep every processor busy.
ROWS = 1024

# A Fortran-ordered array has no rows to stream; this many bytes may be held at once.
FORTRAN_BYTES = 256 << 20

# NumPy's kinds of dtypes that are numbers: booleans, whole ones, floats.
NUMBERS = "buif"

# Source: the IDX description on LeCun's MNIST page.
IDX_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


@dataclass(frozen=True, slots=True)
class ArrayRows:
    """Rows of one array.

    Attributes:
        place: the source.
        first: the number of the first row.
        rows: any numeric dtype, shape (n, 784).
        full: the value of full ink, 1 or 255.
        labels: numbers or text of numbers in bytes, shape (n,), or None.
    """

    place: Place
    first: int
    rows: Numbers
    full: int
    labels: Numbers | None

    def decode(self) -> Items:
        """Return the rows as items named by their number from 0."""
        images, errors = to_images(self.rows, self.full)
        labels: npt.NDArray[np.int8] | None = None
        if self.labels is not None:
            parse = parse_labels if self.labels.dtype.kind == "S" else to_labels
            labels, wrong_labels = parse(self.labels)
            errors = wrong_labels | errors
        names = list(map(str, range(self.first, self.first + len(images))))
        return rows_of_place(self.place, names, images, labels, errors)


def read_idx_header(stream: Readable) -> tuple[np.dtype[np.generic], tuple[int, ...]]:
    """Return dtype and shape from the header of an IDX stream."""
    magic = read_fully(stream, 4)
    sizes = read_fully(stream, 4 * magic[3])
    if magic[2] not in IDX_DTYPES or len(sizes) < 4 * magic[3]:
        raise InvalidInput(f"an IDX file with a broken header, magic 0x{magic.hex()}")
    return np.dtype(IDX_DTYPES[magic[2]]), struct.unpack(f">{magic[3]}I", sizes)


def labels_path(path: Path) -> Path:
    """Return where MNIST keeps the labels of this file of images; the path itself if its name is no such name."""
    return path.with_name(path.name.replace("images-idx3", "labels-idx1").replace("images.idx3", "labels.idx1"))


def idx_tasks(stream: Readable, place: Place, scale: Scale, labels: Numbers | None = None) -> Iterator[ArrayRows]:
    """Yield the tasks of an IDX stream of images.

    Args:
        stream: at its first byte.
        place: the source.
        scale: see `decide_scale`.
        labels: shape (N,), of the same images, or None.

    Raises:
        InvalidInput: no images, or more or fewer bytes than the header promises (after the rows that are there).
    """
    dtype, shape = read_idx_header(stream)
    if len(shape) == 1:
        raise InvalidInput(f"an IDX file of {shape[0]} labels, expected one of images, shape (N, 28, 28)")
    yield from row_tasks(stream, place, dtype, count_images(shape), scale, labels)


def npy_tasks(stream: Readable, place: Place, scale: Scale, labels: Numbers | None = None) -> Iterator[ArrayRows]:
    """Yield the tasks of an NPY stream of images; arguments and errors as for `idx_tasks`. Reads no pickles."""
    shape, fortran, dtype = read_npy_header(stream)
    count = count_images(shape)
    if not fortran or len(shape) == 1:
        yield from row_tasks(stream, place, dtype, count, scale, labels)
        return
    if count * PIXELS * dtype.itemsize > FORTRAN_BYTES:
        raise InvalidInput("columns come first (Fortran order): save it with numpy.ascontiguousarray")
    data = read_fully(stream, count * PIXELS * dtype.itemsize)
    if len(data) < count * PIXELS * dtype.itemsize:
        raise InvalidInput(_describe_cut(count, len(data), dtype))
    rows = np.ascontiguousarray(np.frombuffer(data, dtype).reshape(shape, order="F")).reshape(-1, PIXELS)
    full = decide_scale(rows[:ROWS], scale)
    for first in range(0, count, ROWS):
        part = slice(first, first + ROWS)
        yield ArrayRows(place, first, rows[part], full, None if labels is None else labels[part])
    _check_end(stream, count)


def read_npy_header(stream: Readable, kinds: str = NUMBERS) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Return shape, Fortran order and dtype from the header of an NPY stream.

    Args:
        stream: at its first byte.
        kinds: of dtypes, as NumPy names them.

    Raises:
        InvalidInput: a broken header, or an array of Python objects, which could only be read as a pickle.
    """
    file = cast("IO[bytes]", stream)  # of which nothing but `read` is used
    try:
        version = npy.read_magic(file)
        reader = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, fortran, dtype = reader(file)
    except BROKEN:
        raise
    except Exception as error:  # NumPy reads the header with tokenize and ast, whose exceptions share no type
        raise InvalidInput("an NPY file with a broken header") from error
    if dtype.hasobject:
        raise InvalidInput("an array of Python objects (pickles) is not read: save numbers")
    if dtype.kind not in kinds:
        raise InvalidInput(f"expected numbers, got an array of {dtype}")
    return shape, fortran, dtype


def row_tasks(
    stream: Readable,
    place: Place,
    dtype: np.dtype[np.generic],
    count: int,
    scale: Scale,
    labels: Numbers | None,
) -> Iterator[ArrayRows]:
    """Yield the tasks of `count` images that lie one after the other in the stream."""
    row_bytes, full, first = PIXELS * dtype.itemsize, 0, 0
    while first < count:
        wanted = min(ROWS, count - first)
        data = read_until_broken(stream, wanted * row_bytes)
        rows = np.frombuffer(data, dtype, len(data) // row_bytes * PIXELS).reshape(-1, PIXELS)
        if len(rows):
            full = full or decide_scale(rows, scale)
            yield ArrayRows(place, first, rows, full, None if labels is None else labels[first : first + len(rows)])
        first += len(rows)
        if len(rows) < wanted:
            stream.read(1)  # where it is broken, that is why
            raise InvalidInput(_describe_cut(count, first * row_bytes + len(data) % row_bytes, dtype))
    _check_end(stream, count)


def _check_end(stream: Readable, count: int) -> None:
    if rest := len(read_fully(stream, 1 << 16)):
        raise InvalidInput(f"{rest} bytes or more after the last of {count} images")


def _describe_cut(count: int, found_bytes: int, dtype: np.dtype[np.generic]) -> str:
    row_bytes = PIXELS * dtype.itemsize
    return (
        f"cut short: the header promises {count} images ({count * row_bytes} bytes), "
        f"found {found_bytes // row_bytes} ({found_bytes} bytes)"
    )
