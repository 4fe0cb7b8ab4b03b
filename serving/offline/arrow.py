"""Arrow arrays from NumPy's memory and back.

Must not know: what they mean. `pyarrow.array` and `Array.to_numpy` look for pandas and import it where it is installed,
which takes 0.2 s; `pyarrow.array` also looks at every value.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa  # type: ignore[import-untyped]

Mask = npt.NDArray[np.bool_]

# Arrow's names of what NumPy calls otherwise; before 26, `to_pandas_dtype` needs pandas.
_FLOATS = {"halffloat": "float16", "float": "float32", "double": "float64"}


def _bits(mask: Mask | None) -> pa.Buffer | None:
    return None if mask is None else pa.py_buffer(np.packbits(mask, bitorder="little"))


def numbers(values: npt.NDArray[Any], valid: Mask | None = None) -> pa.Array:
    """Return numbers, shape (N,), as an array of the same type, null where `valid` is false."""
    data = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [_bits(valid), data])


def booleans(values: Mask) -> pa.Array:
    """Return booleans, shape (N,)."""
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, _bits(values)])


def texts(values: Sequence[str], valid: Mask | None = None) -> pa.Array:
    """Return texts, null where `valid` is false."""
    encoded = [value.encode() for value in values]
    buffers = [_bits(valid), pa.py_buffer(_offsets(encoded)), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def _offsets(values: Sequence[Sequence[Any]]) -> npt.NDArray[np.int32]:
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, values), np.int32, len(values)), out=offsets[1:])
    return offsets


def lists_of_texts(values: Sequence[Sequence[str]]) -> pa.Array:
    """Return lists of texts."""
    inner = texts([text for value in values for text in value])
    return pa.Array.from_buffers(
        pa.list_(pa.string()), len(values), [None, pa.py_buffer(_offsets(values))], children=[inner]
    )


def lists_of_ten(values: npt.NDArray[np.float32], valid: Mask) -> pa.Array:
    """Return the rows of an array of shape (N, 10), null where `valid` is false."""
    kind = pa.list_(pa.float32(), 10)
    return pa.Array.from_buffers(kind, len(values), [_bits(valid)], children=[numbers(values.reshape(-1))])


def values_of(column: pa.Array) -> npt.NDArray[Any]:
    """Return the numbers of an array, shape (N,), anything where they are null; no copy."""
    name = str(column.type)
    dtype = np.dtype(_FLOATS.get(name, name))
    return np.frombuffer(column.buffers()[1] or b"", dtype, len(column), column.offset * dtype.itemsize)


def validity_of(column: pa.Array) -> Mask:
    """Return where an array is not null, shape (N,)."""
    bits = column.buffers()[0]
    if bits is None:
        return np.ones(len(column), bool)
    unpacked = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")
    return unpacked[column.offset : column.offset + len(column)].astype(bool)
