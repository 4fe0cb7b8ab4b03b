"""Finds the ink of a picture: its polarity, its contrast against the local paper, the strokes that belong together.

Must not know: files, formats, MNIST's form.
"""

from dataclasses import dataclass

import cv2

from serving.preprocess import background
from serving.preprocess.grey import Box, Grey, shrink
from serving.preprocess.strokes import Strokes, choose

# The ink is looked for in a picture of at most this longer side; strokes of 1/300 of it are still seen.
WORK_SIDE_PIXELS = 384


@dataclass(frozen=True, slots=True)
class Ink:
    """Where the ink is, in pixels of the work picture.

    Attributes:
        dark: the ink is darker than the paper.
        scale: work pixels per pixel of the decoded picture.
        paper: float32 (height, width): the paper's level, of dark ink on light paper.
        mask: uint8 (height, width), 255 where the chosen strokes are.
        box: left, top, right, bottom of the mask, None where there is no ink.
        level: contrast of the ink against the paper, 0 to 255.
        strokes: all of it, for a judgement.
    """

    dark: bool
    scale: float
    paper: Grey
    mask: Grey
    box: Box | None
    level: float
    strokes: Strokes


def find_ink(grey: Grey) -> Ink:
    """Find the ink in a grey picture, uint8 (height, width)."""
    work = shrink(grey, WORK_SIDE_PIXELS)
    scale = work.shape[1] / grey.shape[1]
    dark = background.is_ink_dark(work)
    if not dark:
        work = cv2.bitwise_not(work)
    paper = background.estimate_paper(work)
    contrast = background.contrast(work, paper)
    level, threshold = background.ink_level(contrast)
    strokes = choose(contrast, threshold)
    return Ink(dark, scale, paper, strokes.mask, strokes.box, level, strokes)
