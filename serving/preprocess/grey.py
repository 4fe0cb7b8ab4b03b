"""The grey picture that every step works on, how it is made smaller, and its histogram.

Must not know: files, formats, digits.
"""

from typing import Any

import cv2
import numpy.typing as npt

# uint8, shape (height, width); OpenCV's own annotations do not say which dtype comes back.
Grey = npt.NDArray[Any]

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
