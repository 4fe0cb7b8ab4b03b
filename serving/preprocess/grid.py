"""Takes the lines of squared paper out of the contrast, where they are dark enough to join the strokes.

Must not know: files, formats, MNIST's form, which strokes belong to the digit.
"""

import cv2
import numpy as np

from serving.preprocess.background import Levels
from serving.preprocess.grey import Box, Grey

# Strokes that reach this far both ways are joined by lines, of the picture's sides.
JOINED_SHARE = 0.8
# Of the picture's side: a run of ink this long is a piece of a line. Pieces are joined over gaps of so many pixels, and
# what then reaches this far, and is no higher, is a line.
PIECE_SHARE = 0.12
GAP_PIXELS = 5
LINE_SHARE = 0.6
SLOPE_SHARE = 0.25
# No digit has as many lines across the whole picture, both ways.
MIN_LINES = 3
# A line is no broader than this share of the picture's longer side, and the pen is broader.
BREADTH_SHARE = 0.012
# From here on a pixel belongs to a line: a share of the ink's contrast, a multiple of the noise.
LINE_LEVEL = (0.12, 3.0)


def is_joined(box: Box | None, shape: tuple[int, ...]) -> bool:
    """Return whether strokes with this box may be joined by the lines of a picture of this shape."""
    if box is None:
        return False
    left, top, right, bottom = box
    return bottom - top > JOINED_SHARE * shape[0] and right - left > JOINED_SHARE * shape[1]


def without_grid(contrast: Grey, levels: Levels) -> Grey | None:
    """Return the contrast without the lines that run across the picture; None where they do not run both ways.

    Args:
        contrast: uint8 (height, width), 0 = paper.
        levels: of this contrast.
    """
    _, ink = cv2.threshold(contrast, levels.threshold(*LINE_LEVEL), 255, cv2.THRESH_BINARY)
    across, down = _find_lines(ink), _find_lines(ink.T).T
    if not across.any() or not down.any():
        return None
    side = 2 * max(round(BREADTH_SHARE * max(contrast.shape)), 2) + 1
    clean = contrast.copy()
    for lines, kernel in ((across, np.ones((side, 1), np.uint8)), (down, np.ones((1, side), np.uint8))):
        # Broader strokes stay where a line crosses them.
        opened = cv2.morphologyEx(contrast, cv2.MORPH_OPEN, kernel)
        clean = np.where(lines, np.minimum(clean, opened), clean)
    return clean


def _find_lines(ink: Grey) -> Grey:
    """Return where at least `MIN_LINES` lines run from left to right, and a pixel around them; else nowhere."""
    height, width = ink.shape
    run = np.ones((1, max(round(PIECE_SHARE * width), GAP_PIXELS)), np.uint8)
    pieces = cv2.morphologyEx(np.ascontiguousarray(ink), cv2.MORPH_OPEN, run)
    joined = cv2.dilate(pieces, np.ones((1, GAP_PIXELS), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    far = stats[:, cv2.CC_STAT_WIDTH] >= LINE_SHARE * width
    is_line = far & (stats[:, cv2.CC_STAT_HEIGHT] < SLOPE_SHARE * height)
    is_line[0] = False  # the paper
    if np.count_nonzero(is_line) < MIN_LINES:
        return np.zeros_like(labels, bool)
    found: Grey = cv2.dilate(is_line[labels].astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return found
