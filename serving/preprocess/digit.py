"""Draws chosen strokes as MNIST would have them: 20x20, anti-aliased, centre of mass in 28x28.

Must not know: files, formats, how the strokes were chosen.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from serving.preprocess import background
from serving.preprocess.grey import Grey, histogram_of

if TYPE_CHECKING:
    from serving.preprocess.ink import Ink


DIGIT_PIXELS, FIELD_PIXELS = 20, 28
# The strokes are cleaned at eight times MNIST's resolution, as a black-and-white picture like those of NIST.
FINE = 8
FINE_PIXELS = FINE * DIGIT_PIXELS
# MNIST's strokes, in its pixels: 90 % are between 1.9 and 4.4 wide.
STROKE_PIXELS = (2.0, 4.4)
# Standard deviation of the smoothing, in MNIST's pixels.
SMOOTHING = 0.2
# A broader smoothing is done in a smaller picture, in a third of the time; of 600 digits 5 to 9 pixels high as many
# were read right, give or take three.
BROADEST_SMOOTHING = 5.0
# What is no larger, in pixels of the work picture, has no form; enlarged and smoothed, one pixel took a second.
DOT_PIXELS = 2
# The contrast of the ink is that which this share of the pixels at the strokes reaches.
STRONGEST_SHARE = 0.2
GRADES_DOWN = np.arange(255.0, -1, -1)
# The edge of a stroke, as a share of its contrast.
EDGE_SHARE = 0.45


@dataclass(frozen=True, slots=True)
class Drawing:
    """`image` uint8 (28, 28); `fine` the strokes, 0 or 255, long side 160; `stroke_pixels` before thickening."""

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
    """Return the chosen strokes, 0 or 255, cut from the decoded picture: long side `FINE_PIXELS` and a margin."""
    assert ink.strokes.box is not None
    left, top, right, bottom = ink.strokes.box
    side = max(right - left, bottom - top)
    factor = FINE_PIXELS / side
    if side <= DOT_PIXELS:
        return np.full((round((bottom - top) * factor), round((right - left) * factor)), 255, np.uint8)
    height, width = ink.strokes.mask.shape
    left, top, right, bottom = max(left - 2, 0), max(top - 2, 0), min(right + 2, width), min(bottom + 2, height)
    size = max(round((right - left) * factor), 1), max(round((bottom - top) * factor), 1)
    y0, y1, x0, x1 = (round(edge / ink.scale) for edge in (top, bottom, left, right))
    source = grey[y0:y1, x0:x1] if ink.dark else cv2.bitwise_not(grey[y0:y1, x0:x1])
    shrinking = source.shape[0] > size[1]
    part = cv2.resize(source, size, interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC)
    paper = cv2.resize(ink.paper[top:bottom, left:right], size)
    mask = cv2.resize(cv2.dilate(ink.strokes.mask[top:bottom, left:right], np.ones((3, 3), np.uint8)), size)
    sigma = max(SMOOTHING * FINE, 0.5 * factor * ink.scale)
    values = cv2.bitwise_and(_smooth(background.contrast(part, paper), sigma), mask)
    return _threshold(values, mask)


def _smooth(values: Grey, sigma: float) -> Grey:
    """Blur by a bell of this standard deviation, in pixels."""
    shrink = max(sigma / BROADEST_SMOOTHING, 1.0)
    if shrink == 1.0:
        return cv2.GaussianBlur(values, (0, 0), sigma)
    small = cv2.resize(values, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
    return cv2.resize(cv2.GaussianBlur(small, (0, 0), BROADEST_SMOOTHING), values.shape[::-1])


def _threshold(values: Grey, mask: Grey) -> Grey:
    inside = histogram_of(values, mask)
    strongest = np.cumsum(inside[::-1]) <= STRONGEST_SHARE * inside.sum()
    level = float(GRADES_DOWN[strongest].min(initial=255.0))
    return cv2.threshold(values, EDGE_SHARE * level, 255, cv2.THRESH_BINARY)[1]


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
