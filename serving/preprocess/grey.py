"""The grey picture that every step works on, and how it is made smaller.

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
