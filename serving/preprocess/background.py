"""The paper under the ink: which of both is darker, how bright the paper is at each place, what stands out of it.

Must not know: files, formats, MNIST's form.
"""

import cv2
import numpy as np

from serving.preprocess.grey import Grey, shrink

# The paper is estimated in a picture of at most this longer side.
PAPER_SIDE_PIXELS = 96
# A darker region narrower than this share of the longer side is ink, a wider one shadow.
STROKE_SHARE = 0.3
# Below this contrast against the paper, of 255, nothing is ink.
MIN_CONTRAST = 10.0
# How many standard deviations of the paper's grain the ink has to stand out.
MIN_NOISE_RATIO = 5.0
# The share of the ink's contrast from which on a pixel is ink.
INK_SHARE = 0.4
# The darkest pixels by which the ink's level is first guessed.
PEAK_SHARE = 0.003


def is_ink_dark(grey: Grey) -> bool:
    """Return whether the ink is darker than the paper: the paper fills most of the picture and of its border."""
    small = _remove_shading(shrink(grey, 192))
    _, light = cv2.threshold(small, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    peeled = _peel_frame(light)
    border = np.concatenate([peeled[0], peeled[-1], peeled[:, 0], peeled[:, -1]])
    deviation = small.astype(np.float32) - small.mean()
    spread = float(deviation.std())
    skew = float((deviation**3).mean()) / spread**3 if spread else 0.0
    vote = (2 * peeled.mean() - 1) + (2 * border.mean() - 1) - np.clip(skew, -1, 1)
    return bool(vote >= 0)


def _remove_shading(grey: Grey) -> Grey:
    """Subtract a plane, fitted twice so that ink counts little, and keep the mean."""
    coarse = shrink(grey, 32).astype(np.float32)
    rows, columns = coarse.shape
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j].astype(np.float32)
    terms = np.stack([np.ones_like(x), x, y], -1).reshape(-1, 3)
    values, weights = coarse.ravel(), np.ones(coarse.size, np.float32)
    for _ in range(4):
        weighted = terms * weights[:, None]
        plane = np.linalg.lstsq(weighted.T @ terms, weighted.T @ values, rcond=None)[0]
        rest = np.abs(values - terms @ plane)
        weights = 1 / np.maximum(rest, np.median(rest) + 1)
    shading = cv2.resize((terms @ plane - plane[0]).reshape(rows, columns), grey.shape[::-1])
    flat: Grey = np.clip(grey - shading, 0, 255).astype(np.uint8)
    return flat


def _peel_frame(light: Grey) -> Grey:
    """Cut off the edges that are nearly all of the rarer class, at most a fifth of each side: the frame of a scan."""
    rare = 0 if light.mean() > 0.5 else 1
    for _ in range(4):
        light = np.rot90(light)
        share = (light[: max(len(light) // 5, 0)] == rare).mean(1)
        inner = np.flatnonzero(share < 0.85)
        count = int(inner[0]) if len(inner) else len(share)
        light = light[count:]
    return light


def estimate_paper(grey: Grey) -> Grey:
    """Return the brightness of the paper at each place, uint8 like `grey`, of dark ink on light paper."""
    small = shrink(cv2.GaussianBlur(grey, (3, 3), 0) if min(grey.shape) > 64 else grey, PAPER_SIDE_PIXELS)
    side = 2 * round(STROKE_SHARE * max(small.shape) / 2) + 1
    closed = cv2.morphologyEx(small, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_RECT, (side, side)))
    blurred = cv2.GaussianBlur(closed, (0, 0), max(side / 6, 0.5))
    return cv2.resize(blurred, grey.shape[::-1], interpolation=cv2.INTER_LINEAR)


def contrast(grey: Grey, paper: Grey) -> Grey:
    """Return how much darker than the paper each pixel is: uint8, 0 = as light as the paper, 255 = black."""
    return cv2.divide(cv2.subtract(paper, grey), np.maximum(paper, 48), scale=255)


def ink_level(values: Grey) -> tuple[float, float]:
    """Return the contrast of the ink and the threshold above which a pixel is ink; 0 and 255 where there is none."""
    median = float(np.median(values))
    noise = 1.4826 * float(np.median(np.abs(values.astype(np.int16) - round(median))))
    histogram = cv2.calcHist([values], [0], None, [256], [0, 256]).ravel()
    from_top = np.cumsum(histogram[::-1])
    peak = 255.0 - int(np.searchsorted(from_top, PEAK_SHARE * values.size))
    strong = np.arange(256) > (peak + median) / 2
    counts = histogram[strong]
    level = float((np.arange(256)[strong] * counts).sum() / counts.sum()) if counts.sum() else peak
    if level - median < max(MIN_CONTRAST, MIN_NOISE_RATIO * noise):
        return 0.0, 255.0
    return level, max(median + INK_SHARE * (level - median), median + 3 * noise)
