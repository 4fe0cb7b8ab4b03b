"""The paper under the ink: how bright it is at each place, what stands out of it.

Must not know: files, formats, MNIST's form.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from serving.preprocess.grey import Grey, histogram_of, shrink

GRADES = np.arange(256.0)
# The paper is estimated in a picture of at most this longer side.
PAPER_SIDE_PIXELS = 96
# Below this contrast against the paper, of 255, nothing is ink.
MIN_CONTRAST = 10.0
# How many standard deviations of the paper's grain the ink has to stand out.
MIN_NOISE_RATIO = 5.0
# Paper is even, as a computer draws it, where the lowest fifth of all pixels differ by no more than this. Only that
# part is then looked at, because in a tight cut most pixels are ink or the soft edge of it.
EVEN_SPREAD = 1.0
# The standard deviation of a bell, in median distances from its middle; and the least, for 8-bit steps.
BELL_DEVIATION = 1.4826
MIN_NOISE = 0.75
# Where two classes of pixels are apart by this, the lower one is the paper.
CLASSES_APART = 0.85
# The darkest pixels by which the ink's level is first guessed: a line one pixel wide, in longer sides of the picture.
PEAK_LENGTH = 0.15
# A picture that a computer drew: grades that are no further apart than this count as one, two such hold nearly all
# pixels, the paper's this share itself, and the ink is this much darker.
DRAWN_SPREAD = 1
DRAWN_SHARE, DRAWN_PAPER_SHARE = 0.8, 0.3
DRAWN_CONTRAST = 60
# Smooths the steps of the estimate, little enough to follow the edge of a shadow.
PAPER_BLUR_PIXELS = 1.5
# Below this the quotient of two dark levels is noise.
DARKEST_PAPER = 48


def fit_shading(grey: Grey, where: Grey | None = None) -> Grey:
    """Return how much brighter than in its middle each place of a picture is, by a plane: float32 (height, width).

    Args:
        grey: uint8 (height, width).
        where: uint8 like `grey`, 255 where the plane is fitted, 0 elsewhere; None = everywhere.
    """
    coarse = shrink(grey.astype(np.float32), 32)  # rounded, its negative would be another
    rows, columns = coarse.shape
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j].astype(np.float32)
    terms = np.stack([np.ones_like(x), x, y], -1).reshape(-1, 3)
    values, counted = coarse.ravel(), np.ones(coarse.size, np.float32)
    if where is not None:
        counted = (shrink(where, 32).ravel() >= 128).astype(np.float32)
    if not counted.any():
        return np.zeros(grey.shape, np.float32)
    weights = counted
    ridge = np.eye(3, dtype=np.float32) * 1e-3  # a picture one pixel wide has no slope
    for _ in range(4):  # so that ink counts little
        weighted = terms * weights[:, None]
        plane = np.linalg.solve(weighted.T @ terms + ridge, weighted.T @ values)
        rest = np.abs(values - terms @ plane)
        weights = counted / np.maximum(rest, np.median(rest[counted > 0]) + 1)
    shading: Grey = cv2.resize((terms @ plane - plane[0]).reshape(rows, columns), grey.shape[::-1])
    return shading


def subtract(grey: Grey, shading: Grey) -> Grey:
    """Return a picture, uint8 (height, width), without this shading, float32 (height, width), to the nearest level."""
    flat: Grey = np.clip(np.rint(grey - shading), 0, 255).astype(np.uint8)
    return flat


def estimate_paper(grey: Grey, stroke_share: float) -> Grey:
    """Return the brightness of the paper at each place, uint8 like `grey`, of dark ink on light paper.

    Args:
        grey: uint8 (height, width).
        stroke_share: the width of the broadest stroke, of the longer side; a drawing of two levels has no shadows, and
            strokes of any width.
    """
    level = _drawn_paper(grey)
    if level is not None:
        return np.full_like(grey, level)
    small = shrink(grey, PAPER_SIDE_PIXELS)
    side = 2 * round(stroke_share * max(small.shape) / 2) + 1
    closed = cv2.morphologyEx(small, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_RECT, (side, side)))
    blurred = cv2.GaussianBlur(closed, (0, 0), PAPER_BLUR_PIXELS)
    # Lower than the blur at the foot of a shadow's edge, where the shadow would look like ink.
    lowest = cv2.erode(cv2.min(closed, blurred), np.ones((3, 3), np.uint8))
    return cv2.resize(lowest, grey.shape[::-1], interpolation=cv2.INTER_LINEAR)


def _drawn_paper(grey: Grey) -> int | None:
    """Return the level of the paper in a drawing of two levels; None in any other picture."""
    histogram = histogram_of(grey)
    near = np.convolve(histogram, np.ones(2 * DRAWN_SPREAD + 1), "same") / histogram.sum()
    # The lightest: in a tight cut the ink may fill more.
    last = int(np.flatnonzero(near > DRAWN_PAPER_SHARE).max(initial=0))
    first = max(last - 2 * DRAWN_SPREAD, 0)
    level = first + int(near[first : last + 1].argmax())
    ink = near[: max(level - DRAWN_CONTRAST, 0)].max(initial=0.0)
    return level if ink and near[level] > DRAWN_PAPER_SHARE and near[level] + ink > DRAWN_SHARE else None


def contrast(grey: Grey, paper: Grey) -> Grey:
    """Return how much darker than the paper each pixel is: uint8, 0 = as light as the paper, 255 = black."""
    return cv2.divide(cv2.subtract(paper, grey), np.maximum(paper, DARKEST_PAPER), scale=255)


@dataclass(frozen=True, slots=True)
class Levels:
    """Contrasts, 0 to 255: `ink`, 0 where there is none; `noise` the standard deviation of the paper; `paper`."""

    ink: float
    noise: float
    paper: float

    def threshold(self, share: float, noise_ratio: float) -> float:
        """Return the contrast at a share of the way from paper to ink, but out of the noise."""
        return self.paper + max(share * (self.ink - self.paper), noise_ratio * self.noise)


def measure_levels(values: Grey) -> Levels:
    """Return the levels of a picture of contrasts, uint8 (height, width)."""
    histogram = histogram_of(values)
    peak = 255.0 - int(np.searchsorted(np.cumsum(histogram[::-1]), PEAK_LENGTH * max(values.shape)))
    levels = _find_ink(histogram, peak, *_measure_paper(histogram))
    if not levels.ink and (lower := _lower_class(values, histogram)) is not None:
        levels = _find_ink(histogram, peak, *_measure_paper(lower))
    return levels


def _find_ink(histogram: Grey, peak: float, paper: float, noise: float) -> Levels:
    strong = np.where((peak + paper) / 2 <= GRADES, histogram, 0.0)
    ink = float((GRADES * strong).sum() / strong.sum()) if strong.any() else 0.0
    visible = ink - paper >= max(MIN_CONTRAST, MIN_NOISE_RATIO * noise)
    return Levels(ink if visible else 0.0, noise, paper)


def _lower_class(values: Grey, histogram: Grey) -> Grey | None:
    """Return the histogram of the lower of two classes, where there are two, apart from each other: a tight cut."""
    level, _ = cv2.threshold(values, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return np.where(level >= GRADES, histogram, 0.0) if separability(histogram, level) >= CLASSES_APART else None


def separability(histogram: Grey, level: float) -> float:
    """Return how well two classes of pixels, up to a level and above it, are apart: 0 to 1.

    Source: Otsu 1979; it is 0.64 for noise alone, and 0.75 for a ramp.
    """
    is_lower = level >= GRADES
    share = histogram / histogram.sum()
    mean = float(share @ GRADES)
    below, mean_below = float(share @ is_lower), float((share * is_lower) @ GRADES)
    between = (mean * below - mean_below) ** 2
    spread = float(share @ (GRADES - mean) ** 2) * below * (1 - below)
    return between / spread if spread else 0.0


def _measure_paper(histogram: Grey) -> tuple[float, float]:
    """Return the level of the paper and its noise: from its lower part where that is even, else from all of it."""
    low, high = _quantile(histogram, 0.02), _quantile(histogram, 0.2)
    if high - low <= EVEN_SPREAD:
        return high, MIN_NOISE
    middle = _quantile(histogram, 0.5)
    distance = np.abs(GRADES - middle)
    order = np.argsort(distance)
    half = np.searchsorted(np.cumsum(histogram[order]), 0.5 * histogram.sum())
    return middle, max(BELL_DEVIATION * float(distance[order][half]), MIN_NOISE)


def _quantile(histogram: Grey, share: float) -> float:
    cumulative = np.cumsum(histogram)
    return float(np.searchsorted(cumulative, share * cumulative[-1]))
