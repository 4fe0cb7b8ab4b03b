"""Finds the ink of a picture: its polarity, its contrast against the local paper, the strokes that belong together.

Must not know: files, formats, MNIST's form.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from serving.preprocess import background
from serving.preprocess.background import MIN_NOISE_RATIO, Levels
from serving.preprocess.grey import Grey, shrink
from serving.preprocess.grid import is_joined, without_grid
from serving.preprocess.polarity import POLARITY_SIDE_PIXELS, find_polarity
from serving.preprocess.sheet import find_sheet
from serving.preprocess.strokes import Strokes, choose

# The ink is looked for in a picture of at most this longer side; strokes of 1/300 of it are still seen.
WORK_SIDE_PIXELS = 384

# The broadest stroke, of the longer side. A wider dark region is shadow, unless nothing else is ink or the picture is
# cut to its strokes.
STROKE_SHARES = (0.3, 0.75)

# A broad stroke that is cut by the picture's edge looks like a shadow there, and would be taken for paper. No shadow is
# as dark as the ink: nearer to it than this share of the way from the paper. At least this share of the picture is
# looked at so, in a picture of at most this longer side, and belongs to strokes of which this share was seen.
AS_DARK_SHARE, MIN_TAKEN_SHARE, MIN_SEEN_SHARE = 0.75, 0.01, 0.5
BROAD_SIDE_PIXELS = 96


@dataclass(frozen=True, slots=True)
class Ink:
    """Where the ink is, in pixels of the work picture.

    Attributes:
        dark: the ink is darker than the paper.
        scale: work pixels per pixel of the decoded picture.
        paper: uint8 (height, width), the paper's brightness as if the ink were dark.
        levels: contrasts of paper and ink.
        strokes: what was chosen.
    """

    dark: bool
    scale: float
    paper: Grey
    levels: Levels
    strokes: Strokes


def find_ink(grey: Grey) -> Ink:
    """Find the ink in a grey picture, uint8 (height, width)."""
    work = shrink(grey, WORK_SIDE_PIXELS)
    small = shrink(work, POLARITY_SIDE_PIXELS)
    flat = background.subtract(small, background.fit_shading(small))
    sheet = find_sheet(small, flat)
    dark, shading = find_polarity(small, flat) if sheet is None else (sheet.dark, sheet.shading)
    is_tight = sheet is None and shading is not None
    if shading is not None:
        shading = cv2.resize(shading, work.shape[::-1])
        work = background.subtract(work, shading)
    if sheet is not None:
        work = _without_table(work, sheet.mask)
    if not dark:
        work = cv2.bitwise_not(work)
    for stroke_share in STROKE_SHARES[1:] if is_tight else STROKE_SHARES:
        paper = background.estimate_paper(work, stroke_share)
        contrast, levels = _measure(work, paper)
        if levels.ink:
            break
    if (mended := _without_strokes(paper, work, contrast, levels)) is not None:
        paper = mended
        contrast, levels = _measure(work, paper)
    strokes = choose(contrast, levels)
    if is_joined(strokes.box, contrast.shape) and (clean := without_grid(contrast, levels)) is not None:
        strokes = choose(clean, levels)
    if shading is not None:
        # The digit is drawn from the decoded picture, which has its shading.
        paper = background.subtract(paper, -shading if dark else shading)
    return Ink(dark, work.shape[1] / grey.shape[1], paper, levels, strokes)


def _measure(work: Grey, paper: Grey) -> tuple[Grey, Levels]:
    """Return how much each pixel stands out of the paper, and the levels of ink and paper in that."""
    contrast = _smooth(background.contrast(work, paper))
    return contrast, background.measure_levels(contrast)


def _without_strokes(paper: Grey, work: Grey, contrast: Grey, levels: Levels) -> Grey | None:
    """Return the paper without what is as dark as the ink and in one with it: no shadow, but a broad stroke at an edge.

    None where there is no such thing.
    """
    darkest, lightest, *_ = cv2.minMaxLoc(paper)
    dark = lightest * (1 - AS_DARK_SHARE * levels.ink / 255)
    if not levels.ink or darkest > dark:
        return None
    as_dark = shrink(work, BROAD_SIDE_PIXELS) <= dark
    strong = shrink(contrast, BROAD_SIDE_PIXELS) >= levels.threshold(0.5, MIN_NOISE_RATIO)
    if (as_dark & ~strong).mean() < MIN_TAKEN_SHARE:
        return None
    _, labels = cv2.connectedComponents(as_dark.astype(np.uint8))
    sizes = np.bincount(labels.ravel())
    ours = np.bincount(labels[strong & as_dark], minlength=len(sizes)) >= MIN_SEEN_SHARE * sizes
    ours[0] = False
    around = cv2.dilate(ours[labels].astype(np.uint8), np.ones((7, 7), np.uint8))
    around = cv2.resize(around, work.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return np.where(around, np.maximum(paper, round(np.median(paper))), paper) if ours.any() else None


def _without_table(flat: Grey, mask: Grey) -> Grey:
    """Return a picture without shading in which all that is not in the sheet's mask is as bright as the sheet."""
    on_sheet = cv2.resize(mask, flat.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    return np.where(on_sheet, flat, np.median(flat[on_sheet]).astype(np.uint8))


def _smooth(contrast: Grey) -> Grey:
    """Even out a thin line that falls on one row of pixels here, on two there."""
    return cv2.GaussianBlur(contrast, (0, 0), 0.7) if max(contrast.shape) > 64 else contrast
