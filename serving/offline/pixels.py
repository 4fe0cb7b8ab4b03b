"""Numbers of any array to 28x28 images: shapes, scale, range.

Must not know: files.
"""

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from serving.errors import InvalidInput
from serving.offline.items import NO_LABEL, Images

PIXELS = 784
Scale = Literal["auto", "1", "255"]
Numbers = npt.NDArray[Any]

# Of one image among several.
IMAGE_SHAPES = frozenset({(28, 28), (PIXELS,), (1, 28, 28), (28, 28, 1)})
SHAPES = "(N, 28, 28), (N, 784), (N, 1, 28, 28) or (N, 28, 28, 1)"
# Full ink of floats scaled by a rounded factor: float32(255) * float32(0.00392157) is 1.0000002, 255.00005 of 255.
FULLEST = 255 + 1e-3
# Fractions up to this may be 0 to 2, of pixels divided by 127.5, or more than 1 by Lanczos's filter, which adds a fifth
# to either (1.21 measured on MNIST); as 0 to 255 they would show nothing.
OVER_ONE = 2.5

AMBIGUOUS = "every pixel is 0 or 1: say with --scale whether white is 1 or 255"


def count_images(shape: tuple[int, ...]) -> int:
    """Return how many images an array of this shape holds; a single one may lack the first axis.

    Raises:
        InvalidInput: the shape is none of those in use for MNIST.
    """
    if shape in {(28, 28), (PIXELS,)}:
        return 1
    if shape[1:] in IMAGE_SHAPES and shape[0] >= 0:
        return shape[0]
    raise InvalidInput(f"expected an array of shape {SHAPES}, got {shape}")


def decide_scale(sample: Numbers, scale: Scale) -> int:
    """Return the value of full ink, 1 or 255, of the file that begins with `sample`.

    Booleans go to 1 and whole numbers to 255. Fractions go to 1 if none is larger, and to 255 if one is much larger.

    Args:
        sample: the first pixels of the file, any numeric dtype and shape.
        scale: what the user says; `auto` applies the rule.

    Raises:
        InvalidInput: not numbers; nothing but zeros and ones, which fits both scales; or fractions up to about 2, which
            fits neither.
    """
    if sample.dtype.kind not in "buif":
        raise InvalidInput(f"expected numbers, got an array of {sample.dtype}")
    if scale != "auto":
        return int(scale)
    if sample.dtype.kind == "b":
        return 1
    finite = sample[np.isfinite(sample)]
    largest = float(finite.max(initial=0))
    if sample.dtype.kind == "f" and _fractions(finite).any():
        return _scale_of_fractions(largest)
    if largest > 1:
        return 255
    if largest > 0:
        raise InvalidInput(AMBIGUOUS)
    return 255


def _fractions(values: Numbers) -> npt.NDArray[np.bool_]:
    """Return which of any floats are positive and not whole."""
    with np.errstate(invalid="ignore"):
        found: npt.NDArray[np.bool_] = (values > 0) & (values != np.floor(values))
    return found


def _scale_of_fractions(largest: float) -> int:
    if largest <= FULLEST / 255:
        return 1
    if largest <= OVER_ONE:
        raise InvalidInput(f"fractions up to {largest:.7g}: expected 0 to 1 or 0 to 255; say with --scale which")
    return 255


def to_images(rows: Numbers, full: int) -> tuple[Images, dict[int, str]]:
    """Return rows of pixels as images, and why some rows are none.

    Args:
        rows: any numeric dtype, shape (N, 784), row-major.
        full: the value of full ink, 1 or 255.

    Returns:
        uint8, shape (N, 28, 28), zeros where the row is in error; position -> error.
    """
    if rows.dtype == np.uint8 and full == 255:
        return np.ascontiguousarray(rows).reshape(-1, 28, 28), {}
    with np.errstate(invalid="ignore", over="ignore"):
        pixels = rows.astype(np.float64) * (255 / full)
        bad = ~((pixels >= 0) & (pixels <= FULLEST)).all(axis=1)
    errors = {int(index): _describe_range(rows[index], full) for index in np.flatnonzero(bad)}
    if rows.dtype.kind == "f" and full == 255:
        errors |= dict.fromkeys(_small(rows, bad), "values from 0 to 1 only, in a file whose scale is 0 to 255")
    pixels[list(errors)] = 0
    return np.rint(pixels).astype(np.uint8).reshape(-1, 28, 28), errors


def _small(rows: Numbers, bad: Any) -> list[int]:
    """Return the rows that look like fractions of 1."""
    small = ~bad & _fractions(rows).any(axis=1) & (rows.max(axis=1, initial=0) <= FULLEST / 255)
    return [int(index) for index in np.flatnonzero(small)]


def _describe_range(row: Numbers, full: int) -> str:
    for position, value in enumerate(row.tolist()):
        if not math.isfinite(value) or not 0 <= value * (255 / full) <= FULLEST:
            return f"pixel {position} is {value:g}, expected 0 to {full}"
    return f"a pixel is out of 0 to {full}"


def to_labels(values: Numbers) -> tuple[npt.NDArray[np.int8], dict[int, str]]:
    """Return labels as int8, shape (N,), and why some are none.

    Args:
        values: numbers, shape (N,); whole and from 0 to 9 where they are right, NaN where there is none.
    """
    with np.errstate(invalid="ignore"):
        right = (values >= 0) & (values <= 9) & (values == np.floor(values))
    labels = np.where(right, values, 0).astype(np.int8)  # NumPy 2.5 has no -1 beside unsigned numbers
    labels[~right] = NO_LABEL
    wrong = np.flatnonzero(~right & ~np.isnan(values))
    errors = {int(i): f"label {values[i]:g}, expected a whole number from 0 to 9" for i in wrong}
    return labels, errors
