"""The grey picture that every step works on, how it is made smaller, its histogram, and boxes in it.

Must not know: files, formats, digits.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy.typing as npt

# uint8, shape (height, width); OpenCV's own annotations do not say which dtype comes back.
Grey = npt.NDArray[Any]

# Left, top, right and bottom, in pixels; the last two are the first beyond it.
Box = tuple[int, int, int, int]


def shrink(grey: Grey, side_pixels: int) -> Grey:
    """Return the picture with its longer side at most `side_pixels`, each pixel the mean of those it stands for."""
    scale = side_pixels / max(grey.shape)
    if scale >= 1:
        return grey
    size = max(round(grey.shape[1] * scale), 1), max(round(grey.shape[0] * scale), 1)
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA)


def histogram_of(grey: Grey, where: Grey | None = None) -> Grey:
    """Return how many pixels have each level: float32 (256,).

    Args:
        grey: uint8 (height, width).
        where: uint8 like `grey`, not 0 where pixels count; None = everywhere.
    """
    histogram: Grey = cv2.calcHist([grey], [0], where, [256], [0, 256]).ravel()
    return histogram


def union_of(boxes: Sequence[Box]) -> Box:
    """Return the smallest box around all of `boxes`, of which there is one at least."""
    left, top, right, bottom = zip(*boxes, strict=True)
    return min(left), min(top), max(right), max(bottom)


def gap_between(box: Box, other: Box) -> int:
    """Return how many pixels lie between two boxes, in the direction in which more do; 0 if they touch."""
    horizontal = max(box[0] - other[2], other[0] - box[2], 0)
    vertical = max(box[1] - other[3], other[1] - box[3], 0)
    return max(horizontal, vertical)
