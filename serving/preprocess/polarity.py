"""Which of ink and paper is the darker one, and whether the picture is cut so tightly that its ink may fill most of it.

Must not know: files, formats, MNIST's form, sheets.
"""

from typing import NamedTuple

import cv2
import numpy as np

from serving.preprocess.background import (
    DARKEST_PAPER,
    GRADES,
    MIN_CONTRAST,
    fit_shading,
    separability,
    subtract,
)
from serving.preprocess.grey import Grey, histogram_of
from serving.preprocess.outline import corners_of, is_border_soft, largest_outline

# It is decided in a picture of at most this longer side.
POLARITY_SIDE_PIXELS = 128
# An edge of which this share is unlike most of the picture is a scan's frame.
FRAME_SHARE = 0.85
# A picture may be cut so tightly that its ink is as large a share of it as this. There are two levels then, as well
# apart as this: beside paper and ink, a shadow or a table is a third.
TIGHT_INK_SHARES = 0.35, 0.75
TIGHT_SEPARABILITY = 0.92
EDGE = np.ones((3, 3), np.uint8)
# Around what is inside a frame lies this share of paper at least; around a digit cut to its strokes, less.
PAPER_IN_FRAME_SHARE = 0.9
# Of the picture's outline: a shorter piece is a speck.
MIN_PIECE_SHARE = 0.03
# What has straight sides is a sheet, no digit. How far a side may bulge, of the outline's length; of the area around
# it, how much the straight sides enclose, and how much the outline itself does: of a circle seven chords enclose 0.87.
BULGE_SHARE = 0.02
STRAIGHT_SHARE, SOLID_SHARE = 0.96, 0.88

# Over two pixels of the border of ink the levels differ by more than this share of the difference between both classes:
# 0.58 out of focus, but 0.06 to 0.24 around the light of a flash or a lamp. Where more of the border than this share is
# softer, what is even over so many pixels is light and shade.
SOFT_STEP, MAX_SOFT_SHARE, SPOT_PIXELS = 0.3, 0.2, 39


class Polarity(NamedTuple):
    """`dark`: the ink is darker than the paper.

    `shading`: where the picture is cut to strokes that may fill most of it, that of the paper, float32 (height, width);
    else None.
    """

    dark: bool
    shading: Grey | None


def find_polarity(small: Grey, flat: Grey) -> Polarity:
    """Return the polarity of a small picture, uint8 (height, width), `flat` without its shading."""
    return _find_tight_cut(small) or Polarity(_fills_the_lighter_one_most(flat), None)


def _find_tight_cut(small: Grey) -> Polarity | None:
    """Return the polarity of a picture of which much is ink; None where that cannot be told."""
    least, most = TIGHT_INK_SHARES
    level, light = cv2.threshold(small, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    if not 1 - most <= cv2.mean(light)[0] <= most:  # as in most pictures
        return None
    lighter, darker = cv2.mean(small, light)[0], cv2.mean(small, 1 - light)[0]
    if (lighter - darker) * 255 < MIN_CONTRAST * max(lighter, DARKEST_PAPER):  # neither is ink
        return None
    surely_light, surely_dark = cv2.erode(light, EDGE), cv2.erode(1 - light, EDGE)  # a soft edge is of neither
    histogram = histogram_of(small, cv2.max(surely_light, surely_dark))
    if not histogram.any() or separability(histogram, level) < TIGHT_SEPARABILITY:
        return None
    dark = _is_paper_light_along_the_edges(light)
    if dark is None:
        return None
    ink, paper = (1 - light, surely_light) if dark else (light, surely_dark)
    is_tight = cv2.mean(ink)[0] > least and not _has_straight_sides(ink)
    return Polarity(dark, fit_shading(small, paper * np.uint8(255))) if is_tight else None


def _is_paper_light_along_the_edges(light: Grey) -> bool | None:
    """Return whether the paper is where `light` is 1, and not where it is 0, by what of it reaches the picture's edges.

    The strokes of a digit are in one piece; where they are cut they part the paper into several, and where they are not
    it is all that the edges show. None where both are in as many pieces.
    """
    inner = _peel_frame(light)
    if abs(cv2.mean(_edges(inner))[0] - round(cv2.mean(light)[0])) > 1 - PAPER_IN_FRAME_SHARE:
        inner = light
    inner = cv2.medianBlur(np.ascontiguousarray(inner), 3)
    dark_pieces, light_pieces = _count_pieces(1 - inner), _count_pieces(inner)
    return None if dark_pieces == light_pieces else light_pieces > dark_pieces


def _has_straight_sides(body: Grey) -> bool:
    """Return whether the largest part of what is 1 in `body` fills a polygon."""
    outline = largest_outline(body)
    if outline is None:
        return False
    hull = cv2.convexHull(outline)
    area = cv2.contourArea(hull)
    return (
        cv2.contourArea(corners_of(hull, BULGE_SHARE)) >= STRAIGHT_SHARE * area
        and cv2.contourArea(outline) >= SOLID_SHARE * area
    )


def _count_pieces(where: Grey) -> int:
    """Return how many connected parts of what is 1 in `where` reach the edges, but for specks."""
    _, labels = cv2.connectedComponents(where)
    edges = _edges(labels)
    return int((np.bincount(edges)[1:] >= MIN_PIECE_SHARE * edges.size).sum())


def _edges(picture: Grey) -> Grey:
    return np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])


def _fills_the_lighter_one_most(flat: Grey) -> bool:
    """Return whether the lighter class fills most of a picture without shading, and of its border: the paper."""
    _, light = cv2.threshold(flat, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    if is_border_soft(flat, light, SOFT_STEP, MAX_SOFT_SHARE):
        flat = subtract(flat, cv2.medianBlur(flat, SPOT_PIXELS).astype(np.float32) - 128)
        _, light = cv2.threshold(flat, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    peeled = _peel_frame(light)
    most = (2 * cv2.mean(peeled)[0] - 1) + (2 * cv2.mean(_edges(peeled))[0] - 1)
    return most >= max(-1.0, min(1.0, _skewness(flat)))


def _skewness(grey: Grey) -> float:
    histogram = histogram_of(grey)
    share = histogram / histogram.sum()
    deviation = GRADES - float(share @ GRADES)
    spread = float(share @ deviation**2) ** 0.5
    return float(share @ deviation**3) / spread**3 if spread else 0.0


def _peel_frame(light: Grey) -> Grey:
    """Cut off the edges that are nearly all of the rarer class, at most a fifth of each side: the frame of a scan."""
    common = round(cv2.mean(light)[0])
    for _ in range(4):
        light = np.rot90(light)
        share_of_light = light[: len(light) // 5].mean(1)
        inner = np.abs(share_of_light - common) < FRAME_SHARE
        light = light[int(inner.argmax()) if inner.any() else len(inner) :]
    return light
