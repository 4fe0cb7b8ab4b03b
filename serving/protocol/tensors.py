"""Input tensors, raw or as lists, to images or encoded pictures; output tensors to raw bytes.

Must not know: JSON, protobuf.
Source: Open Inference Protocol v2, and Triton's binary tensor data extension: little-endian, row-major, an element of
BYTES preceded by its length as uint32.
"""

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.errors import InvalidInput, TooLarge, shown
from serving.heavy import pieces
from serving.protocol.messages import Images, OutputTensor, TensorHeader

INPUT = "images"
DTYPES: dict[str, np.dtype[Any]] = {
    "UINT8": np.dtype("u1"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
ACCEPTED = (
    "UINT8 [-1,28,28], 0 = paper, 255 = ink; or FP16, FP32, FP64 of that shape, 0 = paper, 1 = ink; "
    "or BYTES [-1], encoded pictures"
)

_LENGTH = struct.Struct("<I")

# Numbers of a list that are converted at a time: with 1.6 million, numpy would keep the interpreter for 24 ms.
PIECE_VALUES = 8_192


def check_header(header: TensorHeader, max_images: int) -> None:
    """Refuse a name, datatype or shape that is not the model's input.

    Raises:
        InvalidInput: says what was found and what is accepted.
        TooLarge: more images than one request may have.
    """
    name, datatype, shape = header
    if name != INPUT:
        raise InvalidInput(f"input {shown(name)}: the model's only input is {INPUT!r}")
    if datatype in DTYPES:
        # A channel dimension of one, as PyTorch's loaders give it, changes neither the order nor the number of values.
        fits = shape[1:] in ((28, 28), (1, 28, 28)) and shape[0] >= 0
    elif datatype == "BYTES":
        fits = len(shape) == 1 and shape[0] >= 0
    else:
        raise InvalidInput(f"input {INPUT!r}: got datatype {shown(datatype)}, expected {ACCEPTED}")
    if not fits:
        raise InvalidInput(f"input {INPUT!r}: got {datatype} of shape {shown(list(shape))}, expected {ACCEPTED}")
    if shape[0] > max_images:
        raise TooLarge(f"{shape[0]} images in one request; the limit is {max_images}")


def images_of_values(values: npt.NDArray[Any], shape: tuple[int, ...]) -> Images:
    """Return uint8 images (N, 28, 28) of flat values: uint8 as they are, floats as round(255 * x).

    Args:
        values: uint8, or floats in [0, 1]; of a length that is already checked.
        shape: (N, 28, 28) or (N, 1, 28, 28).

    Raises:
        InvalidInput: a float is outside [0, 1] or no number.
    """
    if values.dtype != np.uint8:
        values = _quantize(values)
    return values.reshape(shape[0], 28, 28)


def _quantize(values: npt.NDArray[Any]) -> Images:
    if not values.size:
        return np.empty(0, np.uint8)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0.0 and high <= 1.0):
        raise InvalidInput(
            f"input {INPUT!r}: got values from {low:g} to {high:g}; a float tensor holds intensities from 0 (paper) to "
            "1 (ink): send them as they are, normalisation by mean and standard deviation is the model's business"
        )
    # FP16 has too few bits for the product.
    intensities = values.astype(np.float32) if values.dtype.itemsize < 4 else values
    rounded: Images = np.rint(intensities * 255).astype(np.uint8)
    return rounded


def read_raw(header: TensorHeader, data: bytes | memoryview) -> Images | list[bytes]:
    """Return what the raw bytes of a tensor hold.

    Args:
        header: checked by `check_header`.
        data: exactly the tensor's bytes.

    Raises:
        InvalidInput: another number of bytes than shape and datatype ask for, or a value that is refused.
    """
    if header.datatype == "BYTES":
        return _split_elements(data, header.shape[0])
    dtype = DTYPES[header.datatype]
    expected = math.prod(header.shape) * dtype.itemsize
    if len(data) != expected:
        raise InvalidInput(
            f"input {INPUT!r}: got {len(data)} bytes, expected {expected} for {header.datatype} {list(header.shape)}"
        )
    return images_of_values(np.frombuffer(data, dtype), header.shape)


def _split_elements(data: bytes | memoryview, count: int) -> list[bytes]:
    elements: list[bytes] = []
    offset = 0
    while offset < len(data):
        start = offset + _LENGTH.size
        if start > len(data):
            raise InvalidInput(f"input {INPUT!r}: element {len(elements)} has no length of four bytes before it")
        (length,) = _LENGTH.unpack_from(data, offset)
        offset = start + length
        if offset > len(data):
            raise InvalidInput(
                f"input {INPUT!r}: element {len(elements)} should have {length} bytes, {len(data) - start} are left"
            )
        if len(elements) == count:
            raise InvalidInput(f"input {INPUT!r}: got more than {count} elements, expected {count} for BYTES [{count}]")
        elements.append(bytes(data[start:offset]))
    return check_count(elements, count)


def check_count(elements: list[bytes], count: int) -> list[bytes]:
    """Return the elements of a BYTES tensor if there are `count` of them, refuse them otherwise."""
    if len(elements) != count:
        raise InvalidInput(f"input {INPUT!r}: got {len(elements)} elements, expected {count} for BYTES [{count}]")
    return elements


def read_list(header: TensorHeader, data: list[Any], *, only_numbers: bool) -> Images:
    """Return the images of a list of numbers, flat or nested as the shape says.

    Args:
        header: checked by `check_header`, not BYTES.
        data: whatever stood in the request.
        only_numbers: the caller knows that `data` holds lists, integers and finite floats, nothing else.

    Raises:
        InvalidInput: wrong nesting, number of values, kind of value or range.
    """
    values = _flatten(data, header.shape)
    expected = math.prod(header.shape)
    if len(values) != expected:
        raise InvalidInput(
            f"input {INPUT!r}: got {len(values)} values, expected {expected} for {header.datatype} {list(header.shape)}"
        )
    if not only_numbers:
        _check_numbers(values)
    return images_of_values(_array(values, header.datatype), header.shape)


def _flatten(data: list[Any], shape: tuple[int, ...]) -> list[Any]:
    """Take away the nesting of `data`: every level that the shape has, or none."""
    if not data or not isinstance(data[0], list):
        return data
    rows, count = data, shape[0]
    for length in shape[1:]:
        if len(rows) != count or not all(isinstance(row, list) and len(row) == length for row in rows):
            raise InvalidInput(f"input {INPUT!r}: the lists are not nested as the shape {list(shape)} says")
        flat: list[Any] = []
        for row in rows:
            flat += row
        rows, count = flat, count * length
    return rows


def _check_numbers(values: Sequence[Any]) -> None:
    if all(set(map(type, piece)) <= {int, float} for piece in pieces(values, PIECE_VALUES)):
        return
    index, value = next((index, value) for index, value in enumerate(values) if type(value) not in (int, float))
    kind = {bool: "a boolean", str: "a string", type(None): "null"}.get(type(value), f"a {type(value).__name__}")
    raise InvalidInput(f"input {INPUT!r}: value {index} is {kind}, expected a number")


def _array(values: Sequence[Any], datatype: str) -> npt.NDArray[Any]:
    try:
        # bytes() checks type and range: 3 us for 784 values, where numpy takes 27 and lets 1.5 pass.
        if datatype == "UINT8":
            return np.frombuffer(b"".join(map(bytes, pieces(values, PIECE_VALUES))), np.uint8)
        return np.concatenate([np.array(piece, np.float64) for piece in pieces(values, PIECE_VALUES)])
    except (TypeError, ValueError) as error:
        expected = "whole numbers from 0 to 255" if datatype == "UINT8" else "numbers, flat or nested as the shape says"
        raise InvalidInput(f"input {INPUT!r}: {datatype} takes {expected}") from error


def raw_bytes(output: OutputTensor) -> bytes:
    """Return the raw form of an output tensor."""
    if isinstance(output.values, list):
        return b"".join(part for element in output.values for part in (_LENGTH.pack(len(element)), element))
    return output.values.astype("<f4", copy=False).tobytes()
