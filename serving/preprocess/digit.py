"""Draws chosen strokes as MNIST would have them: 20x20, anti-aliased, centre of mass in 28x28.

Must not know: files, formats, how the strokes were chosen.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from serving.preprocess import background
from serving.preprocess.grey import Grey

if TYPE_CHECKING:
    from serving.preprocess.ink import Ink


DIGIT_PIXELS, FIELD_PIXELS = 20, 28
# The strokes are cleaned at five times MNIST's resolution, as a black-and-white picture like those of NIST.
FINE = 5
FINE_PIXELS = FINE * DIGIT_PIXELS
# MNIST's strokes, in its pixels: 90 % are between 1.9 and 4.4 wide.
STROKE_PIXELS = (2.0, 4.4)


@dataclass(frozen=True, slots=True)
class Drawing:
    """`image` uint8 (28, 28); `fine` the strokes, 0 or 255, long side 100; `stroke_pixels` before thickening."""

    image: Grey
    fine: Grey
    stroke_pixels: float


def draw(grey: Grey, ink: "Ink") -> Drawing:
    """Draw the chosen strokes of a decoded picture."""
    fine = _crop_fine(grey, ink)
    width = stroke_width(fine) / FINE
    even = _even_out(fine, width)
    return Drawing(_centre(_fit(even)), fine, width)


def stroke_width(binary: Grey) -> float:
    """Return the mean width of strokes: in a band of width w the mean distance to its edge is w / 4."""
    distance = cv2.distanceTransform(binary, cv2.DIST_L2, 3)
    return 4 * cv2.mean(distance, binary)[0]


def _crop_fine(grey: Grey, ink: "Ink") -> Grey:
    assert ink.box is not None
    left, top, right, bottom = ink.box
    margin = 2
    height, width = ink.mask.shape
    left, top = max(left - margin, 0), max(top - margin, 0)
    right, bottom = min(right + margin, width), min(bottom + margin, height)
    factor = FINE_PIXELS / max(ink.box[2] - ink.box[0], ink.box[3] - ink.box[1])
    size = max(round((right - left) * factor), 1), max(round((bottom - top) * factor), 1)
    y0, y1 = round(top / ink.scale), min(round(bottom / ink.scale), grey.shape[0])
    x0, x1 = round(left / ink.scale), min(round(right / ink.scale), grey.shape[1])
    source = grey[y0:y1, x0:x1]
    if not ink.dark:
        source = cv2.bitwise_not(source)
    shrinking = source.shape[0] > size[1]
    part = cv2.resize(source, size, interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC)
    paper = cv2.resize(ink.paper[top:bottom, left:right], size)
    near = cv2.dilate(ink.mask[top:bottom, left:right], np.ones((3, 3), np.uint8))
    mask = cv2.resize(near, size, interpolation=cv2.INTER_NEAREST)
    sigma = max(1.0, 0.5 * factor * ink.scale)
    values = cv2.GaussianBlur(background.contrast(part, paper), (0, 0), sigma)
    _, binary = cv2.threshold(cv2.bitwise_and(values, mask), 0.38 * ink.level, 255, cv2.THRESH_BINARY)
    return binary


def _even_out(binary: Grey, width: float) -> Grey:
    thinnest, _ = STROKE_PIXELS
    if width >= thinnest:
        return binary
    side = round((thinnest - width) * FINE) + 1
    padded = cv2.copyMakeBorder(binary, side, side, side, side, cv2.BORDER_CONSTANT, value=0)
    return cv2.dilate(padded, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))


def _fit(binary: Grey) -> Grey:
    left, top, width, height = cv2.boundingRect(binary)
    if not width:
        return np.zeros((1, 1), np.uint8)
    factor = DIGIT_PIXELS / max(width, height)
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    return cv2.resize(binary[top : top + height, left : left + width], size, interpolation=cv2.INTER_AREA)


def _centre(small: Grey) -> Grey:
    moments = cv2.moments(small)
    mass = moments["m00"] or 1.0
    offsets = []
    for name, side in (("m01", small.shape[0]), ("m10", small.shape[1])):
        offset = round(FIELD_PIXELS / 2 - moments[name] / mass)
        offsets.append(min(max(offset, 0), FIELD_PIXELS - side))
    y, x = offsets
    image = np.zeros((FIELD_PIXELS, FIELD_PIXELS), np.uint8)
    image[y : y + small.shape[0], x : x + small.shape[1]] = small
    return image
