"""Flattens a picture with transparency onto the paper that makes its ink visible.

Must not know: files, formats.
"""

import cv2
import numpy as np

from serving.preprocess.grey import Grey

# From this share of opaque pixels on, the picture brings its own paper.
OPAQUE_PAPER_SHARE = 0.6
# Where less is opaque, it is cut out of its paper if it has two levels so far apart, and one of them is more than this
# share of the rim, where it meets the transparent part: the paper. Of 40 digits in ink whose grain has a standard
# deviation of 80, or that goes from black to 230, none is taken for such.
LEVELS_APART = 60
PAPER_RIM_SHARE = 0.9
# Of the longer side of all that is opaque, that of the largest part of the other level: less is a spot in a stroke.
MIN_INK_SHARE = 0.1


def flatten(grey: Grey, alpha: Grey) -> Grey:
    """Return the picture on a uniform paper.

    Where the transparent part is the paper, dark ink gets white paper and light ink black. Where most of the picture is
    opaque, or it is cut out with a rim of its paper, that goes on into the transparent part.

    Args:
        grey: uint8, shape (height, width).
        alpha: uint8 like `grey`, 0 = transparent, 255 = opaque.

    Returns:
        uint8, shape (height, width).
    """
    _, opaque = cv2.threshold(alpha, 127, 255, cv2.THRESH_BINARY)
    opaque_count = cv2.countNonZero(opaque)
    if opaque_count == alpha.size and cv2.minMaxLoc(alpha)[0] == 255:
        return grey
    if not cv2.countNonZero(alpha):
        return np.full_like(grey, 255)
    paper = _own_paper(grey, opaque) if opaque_count else None
    if paper is None:
        paper = 255.0 if cv2.mean(grey, opaque if opaque_count else alpha)[0] < 128 else 0.0
    share = 1 / 255
    covered = cv2.multiply(grey, alpha, scale=share)
    return cv2.add(covered, cv2.multiply(cv2.bitwise_not(alpha), np.full_like(alpha, round(paper)), scale=share))


def _own_paper(grey: Grey, opaque: Grey) -> float | None:
    """Return the level of the paper in what is opaque, 255 in `opaque`, somewhere at least; None if all is ink."""
    if cv2.countNonZero(opaque) > OPAQUE_PAPER_SHARE * grey.size:
        return float(np.median(grey[opaque > 0]))
    lowest, highest, *_ = cv2.minMaxLoc(grey, opaque)
    if highest - lowest < LEVELS_APART:  # as in most pictures
        return None
    split, _ = cv2.threshold(grey[opaque > 0], 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    _, light = cv2.threshold(grey, split, 255, cv2.THRESH_BINARY)
    rim = cv2.subtract(opaque, cv2.erode(opaque, np.ones((3, 3), np.uint8), borderValue=0))
    light_share = cv2.mean(light, rim)[0] / 255
    if max(light_share, 1 - light_share) <= PAPER_RIM_SHARE:
        return None
    dark = cv2.bitwise_not(light)
    paper, ink = (cv2.bitwise_and(each, opaque) for each in ((light, dark) if light_share > 0.5 else (dark, light)))
    if _longest_part(ink) < MIN_INK_SHARE * max(cv2.boundingRect(opaque)[2:]):
        return None
    level = float(np.median(grey[paper > 0]))
    return level if abs(level - float(np.median(grey[ink > 0]))) >= LEVELS_APART else None


def _longest_part(where: Grey) -> int:
    """Return the longer side, in pixels, of the longest connected part of what is not 0; 0 where nothing is."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(where, connectivity=8)
    return int(stats[1:, cv2.CC_STAT_WIDTH : cv2.CC_STAT_AREA].max(initial=0))
