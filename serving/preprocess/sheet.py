"""Finds a sheet of paper that lies on a table of another brightness.

Must not know: files, formats, MNIST's form, where the ink is on the paper.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from serving.preprocess.background import BELL_DEVIATION, fit_shading, subtract
from serving.preprocess.grey import Grey
from serving.preprocess.outline import corners_of, is_border_soft, largest_outline

# Of the picture: a smaller body is a digit, a smaller empty sheet a blot, a smaller table the edge of a scan; what has
# writing on it is told from a digit by that, down to a label 25 pixels wide of 128.
MIN_SHEET_SHARE, MIN_EMPTY_SHARE, MIN_TABLE_SHARE, MIN_LABEL_SHARE = 0.1, 0.4, 0.015, 0.03
# Of its length, the breadth of a sheet that the picture's edges cut, and of one on which nothing is written: a 1 is
# narrower.
MIN_BREADTH, MIN_EMPTY_BREADTH = 0.35, 0.5
# How far a side may bulge, of the outline's length, and how much of the outline its straight sides enclose: of a circle
# eight chords enclose 0.9 at most.
BULGE_SHARE = 0.03
STRAIGHT_SHARE = 0.93
# A corner may be folded or cut off, by the picture's edges too.
CORNERS, CORNERS_WHERE_CUT = range(4, 7), range(3, 9)
# Of the sheet: what is written on it leaves as much of it free. Of its longer side: the writing's longer side, and how
# far a stroke may come over the edge. Of the difference between table and paper: that between ink and paper.
MIN_PAPER_SHARE = 0.7
MIN_WRITING_SHARE, MAX_OVER_SHARE = 0.1, 0.05
MIN_INK_SHARE = 0.25
# Grey levels: where the surroundings are as even as a computer draws them and the hole is like them, it is a broad 0's.
EVEN_SPREAD = 1.5
MIN_DIFFERENCE = 8
# What the hole of a broad 0 fills of its own hull at least, and how many times as much the 0 is broader than its hole
# as it is longer: of 1,462 of them 0.66 and 1.5, but for seven and fifteen. Writing fills less, and beside a 1 is more
# room.
HOLE_SHARE, HOLE_ROOM = 0.65, 1.8
# A page half in shadow may be written on in both halves. So of a table this share at most is as bright as the paper,
# and this share stands out of it: by half of what ink would, or beside an empty sheet by a share of its difference from
# the paper, and out of its own grain.
MAX_PAPER_ON_TABLE, MAX_INK_ON_TABLE = 0.1, 0.003
INK_LEVEL, EMPTY_LEVEL, GRAIN_LEVEL = 0.5, 0.15, 6.0
# Over two pixels of most of a pale sheet's border the levels differ by 0.8 of the difference between both sides and
# more; of what is in the light by 0.02 to 0.4.
SOFT_STEP, MAX_SOFT_SHARE = 0.6, 0.5
# The edge of the sheet, in pixels of the small picture, is not looked at.
EDGE = np.ones((5, 5), np.uint8)
# What is written on a round body reaches no pixel at its rim: else it goes on beside it.
RIM = np.ones((3, 3), np.uint8)
# Where ink comes near to the edge, a body is in one piece as it is, in grain it is without what the grain adds.
NO_OPENING = np.ones((1, 1), np.uint8)


@dataclass(frozen=True, slots=True)
class Sheet:
    """What is found.

    Attributes:
        mask: uint8 (height, width), 255 on the sheet but for its edge.
        shading: float32 (height, width), how much brighter than in its middle its paper is, as if it went on around it.
        dark: its ink is darker than its paper.
    """

    mask: Grey
    shading: Grey
    dark: bool


@dataclass(frozen=True, slots=True)
class _Shape:
    """A body without dents.

    Attributes:
        filled: uint8 (height, width), 255 in it and in its holes.
        cut: it reaches an edge of the picture.
        side: the longer side of its box, in pixels.
        breadth, length: however it is turned, in pixels.
        straight: its sides are; else it is a round label, a ball, a spot of light.
    """

    filled: Grey
    cut: bool
    side: int
    breadth: float
    length: float
    straight: bool


@dataclass(frozen=True, slots=True)
class _Surface:
    """What is on a sheet: `ink` bool (height, width), nowhere if it is empty; grey levels without shading."""

    ink: Grey
    dark: bool
    ink_level: float
    paper_level: float


def find_sheet(small: Grey, flat: Grey) -> Sheet | None:
    """Return where a sheet is in a small picture, uint8 (height, width); None where none is.

    It is a body with straight sides, lighter or darker than what is around it, which may reach the edges of the picture
    and be empty; or a round one with writing on it.

    Args:
        small: the picture.
        flat: the same without its shading.
    """
    _, light = cv2.threshold(small, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    larger, smaller = sorted((light, cv2.bitwise_not(light)), key=cv2.countNonZero, reverse=True)
    return _sheet_of(larger, small) or _sheet_of(smaller, small) or _pale_sheet(small, flat, larger, larger is light)


def _pale_sheet(small: Grey, flat: Grey, larger: Grey, lighter: bool) -> Sheet | None:
    """Return the sheet that differs less from its table than from its ink: both are what is 255 in `larger`.

    It is on the side away from the ink, `lighter` than the table or darker.
    """
    level, _ = cv2.threshold(flat[larger > 0], 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    _, body = cv2.threshold(flat, level, 255, cv2.THRESH_BINARY if lighter else cv2.THRESH_BINARY_INV)
    return _sheet_of(body, small, pale=True)


def _sheet_of(body: Grey, small: Grey, pale: bool = False) -> Sheet | None:
    """Return the sheet that is the largest part of `body`, 255 there, with what is written on it.

    If it is `pale`, it may be a square of the page or its part in the light: so nothing else is as bright, nothing is
    written beside it, and its border is sharp.
    """
    shape = _shape_of(body)
    if shape is None:
        return None
    mask = cv2.erode(shape.filled, EDGE)
    table = shape.filled == 0
    if not mask.any() or not table.any():
        return None
    shading = fit_shading(small, mask)
    flat = subtract(small, shading)
    around = flat[table].astype(np.float32)
    surface = _look_at(flat, mask > 0, float(np.median(around)))
    if surface is None or (shape.cut and not _leave_what_comes_over_the_edge(surface.ink, mask, shape)):
        return None
    written = max(cv2.boundingRect(surface.ink.astype(np.uint8))[2:]) >= MIN_WRITING_SHARE * shape.side
    if written and _is_hole(surface, around, shape):
        return None
    if not shape.straight and (not written or surface.ink[cv2.erode(mask, RIM) == 0].any()):
        return None
    if pale and is_border_soft(small, shape.filled, SOFT_STEP, MAX_SOFT_SHARE):
        return None
    if pale or shape.cut or not written:
        is_table = (body[table] > 0).mean() <= MAX_PAPER_ON_TABLE and around.size >= MIN_TABLE_SHARE * small.size
        is_sheet = shape.breadth >= (MIN_BREADTH if written else MIN_EMPTY_BREADTH) * shape.length
        is_sheet &= written or around.size <= (1 - MIN_EMPTY_SHARE) * small.size
        if not is_sheet or not is_table or _is_written_on(around, surface, written):
            return None
    return Sheet(mask, shading, surface.dark)


def _shape_of(body: Grey) -> _Shape | None:
    """Return the largest part of `body`, if it is large enough, without dents, and straight where it is cut."""
    outline = largest_outline(body)
    if outline is None or cv2.contourArea(cv2.convexHull(outline)) < MIN_LABEL_SHARE * body.size:
        return None
    return _shape_within(body, outline) or _shape_within(body, largest_outline(body, NO_OPENING))


def _shape_within(body: Grey, outline: Grey | None) -> _Shape | None:
    if outline is None:
        return None
    left, top, width, height = cv2.boundingRect(outline)
    cut = not left or not top or left + width == body.shape[1] or top + height == body.shape[0]
    hull = cv2.convexHull(outline)
    area = cv2.contourArea(hull)
    corners = corners_of(hull, BULGE_SHARE)
    least = (MIN_SHEET_SHARE if cut else MIN_LABEL_SHARE) * body.size
    if area < least or cv2.contourArea(outline) <= STRAIGHT_SHARE * area:
        return None
    few = len(corners) in (CORNERS_WHERE_CUT if cut else CORNERS)
    straight = few and cv2.contourArea(corners) > STRAIGHT_SHARE * area
    if cut and not straight:
        return None
    breadth, length = sorted(cv2.minAreaRect(hull)[1])
    filled = cv2.drawContours(np.zeros_like(body), [hull], -1, 255, -1)
    if cv2.mean(body, filled)[0] < MIN_PAPER_SHARE * 255:
        return None
    return _Shape(filled, cut, max(width, height), breadth, length, straight)


def _look_at(flat: Grey, where: Grey, table_level: float) -> _Surface | None:
    """Return what is on a sheet beside a table of this grey level; None where it is no paper.

    Args:
        flat: uint8 (height, width), without shading.
        where: bool (height, width), True on the sheet, somewhere at least.
        table_level: grey level.
    """
    level, _ = cv2.threshold(flat[where], 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    is_light = flat > level
    dark = bool(is_light[where].mean() > 0.5)
    ink = where & (is_light != dark)
    paper_level = float(np.median(flat[where & ~ink]))
    ink_level = float(np.median(flat[ink])) if ink.any() else paper_level
    if abs(ink_level - paper_level) < MIN_INK_SHARE * abs(table_level - paper_level):
        return _Surface(np.zeros_like(ink), paper_level > table_level, paper_level, paper_level)
    if np.count_nonzero(ink) > (1 - MIN_PAPER_SHARE) * np.count_nonzero(where):
        return None
    return _Surface(ink, dark, ink_level, paper_level)


def _leave_what_comes_over_the_edge(ink: Grey, mask: Grey, shape: _Shape) -> bool:
    """Take out of ink and mask what is one with the table; return False where that comes too far over the edge."""
    count, labels = cv2.connectedComponents((ink | (mask == 0)).astype(np.uint8))
    of_table = np.zeros(count, bool)
    of_table[labels[shape.filled == 0]] = True
    over = of_table[labels]
    reach = 2 * round(MAX_OVER_SHARE * shape.side) + 1
    if over[cv2.erode(shape.filled, np.ones((reach, reach), np.uint8)) > 0].any():
        return False
    ink[over] = False
    mask[cv2.dilate(over.astype(np.uint8), EDGE) > 0] = 0
    return True


def _is_hole(surface: _Surface, around: Grey, shape: _Shape) -> bool:
    """Return whether the "writing" may be the hole of a broad 0, through which the same is seen as around it."""
    if not _has_form_of_hole(surface.ink, shape):
        return False
    low, table, high = np.percentile(around, (25, 50, 75))
    if shape.straight:
        return bool(high - low < EVEN_SPREAD and abs(surface.ink_level - table) < MIN_DIFFERENCE)
    beyond = (surface.ink_level - table) / (table - surface.paper_level or 1.0)
    return bool(beyond < MIN_INK_SHARE)


def _has_form_of_hole(ink: Grey, shape: _Shape) -> bool:
    """Return whether the largest part of the ink, bool (height, width), fills its hull, and that follows the shape."""
    body = ink.astype(np.uint8)
    outline = largest_outline(body, NO_OPENING)
    if outline is None:
        return False
    hull = cv2.convexHull(outline)
    breadth, length = sorted(cv2.minAreaRect(hull)[1])
    if shape.breadth - breadth > HOLE_ROOM * (shape.length - length):
        return False
    return cv2.mean(body, cv2.drawContours(np.zeros_like(body), [hull], -1, 1, -1))[0] > HOLE_SHARE


def _is_written_on(around: Grey, surface: _Surface, written: bool) -> bool:
    """Return whether something is written on what is around the sheet, float32 grey levels: the page goes on there."""
    level = float(np.median(around))
    rest = around - level
    if written:
        ink = (surface.ink_level - surface.paper_level) * level / max(surface.paper_level, 1.0)
        rest, least = rest * np.sign(ink), INK_LEVEL * abs(ink)
    else:
        rest, least = np.abs(rest), EMPTY_LEVEL * abs(level - surface.paper_level)
    grain = BELL_DEVIATION * float(np.median(np.abs(rest)))
    return bool((rest > max(least, GRAIN_LEVEL * grain)).mean() > MAX_INK_ON_TABLE)
