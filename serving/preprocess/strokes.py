"""Chooses the strokes that make up the digit among everything that is dark.

Must not know: files, formats, MNIST's form.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from serving.preprocess.background import Levels
from serving.preprocess.grey import Box, Grey, gap_between, union_of

# Of the largest part's longer side: what is smaller is a speck; what lies within this gap belongs to the digit; what is
# smaller and lies farther off is no other digit, but a punched hole, a button, a letter of a heading.
SPECK_SHARE = 0.12
GAP_SHARE = 0.35
OTHER_SHARE = 0.33
# A part is drawn around a digit where another one has this share of the longer side of a hole in it, of a round one and
# of a rectangle. The bar of a slashed 0 that touches nothing has as much, so a straight line in a round hole is left in
# doubt; a dot in a 0 has less.
HOLE_FILL_SHARE, RECTANGLE_FILL_SHARE = 0.4, 0.3
# How much of its box, upright or turned, a hole fills: an ellipse 0.79, a rectangle 1.
RECTANGLE_SHARE = 0.88
# Below this share of the longer side of what is around it, a part is no digit of a row of boxes either.
MIN_FILLING_SHARE = 0.08
# There may be a box around a circle; more is a pattern.
MAX_FRAMES = 3
# A line is narrower than this share of its length, as most of MNIST's 1s are.
LINE_SHARE = 0.3
# The line of a form, of ruled paper or of a page's margin is narrower than this share of its length: 0.004 to 0.025 for
# lines of 2 to 12 pixels in a picture of 640x480, whose sides they reach with a slope of up to 0.06.
RULE_SHARE = 0.04
# A part beside another is a second digit where both share this much of their height, with this gap between them.
NEIGHBOUR_SHARE = 0.65
NEIGHBOUR_GAP = 0.06
# A part within the gap is no stroke of the digit either where it shares this much of the taller one's height and stands
# apart: a digit beside a line, which would make a 6 or a 4 of it. Of 12,000 of MNIST's digits 4 are refused for it.
BESIDE_SHARE = 0.25
# The flag of a 5 may stand apart from it, beside what is less than so many times as high as broad: that is no line.
FLAGGED = 4
# What lies all but this share in a band along the edges, of the shorter side, is the frame of a scan; a digit that was
# cut out to the last pixel is not.
EDGE_BAND = 0.1
MIN_INNER_SHARE = 0.15
# Below this share of the picture's longer side, everything is a speck.
MIN_SIDE = 0.015
# A pixel belongs to a stroke from the weak level on, a stroke has at least one pixel at the strong one: shares of
# the ink's contrast, and multiples of the noise.
WEAK = (0.25, 4.0)
STRONG = (0.45, 5.0)
# Of a stroke's pixels; a shadow or a smudge has a few such grains.
MIN_STRONG_SHARE = 0.05
# Where the core of the ink, from this level on, is a smaller share of the strokes, they are joined by a shadow, and the
# core alone is what was written: 0.08 to 0.3 with the shadow of fingers, 0.34 and more with the thinnest pen.
CORE = (0.6, 5.0)
MIN_CORE_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class Part:
    """A connected part: label, box, number of pixels at the strong level, and of those away from the picture's edge."""

    index: int
    box: Box
    area: int
    inner_area: int

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.box[2] - self.box[0]

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.box[3] - self.box[1]

    @property
    def side(self) -> int:
        """The longer side in pixels."""
        return max(self.width, self.height)

    def mask(self, labels: Grey) -> Grey:
        """Return its pixels among those of its box in the picture of labels: 255 on it, 0 elsewhere."""
        left, top, right, bottom = self.box
        return _where(labels[top:bottom, left:right] == self.index)

    def surrounds(self, other: "Part") -> bool:
        """Return whether the other's box lies within its own."""
        left, top, right, bottom = self.box
        return left < other.box[0] and top < other.box[1] and other.box[2] < right and other.box[3] < bottom

    def is_frame(self, shape: tuple[int, ...]) -> bool:
        """Return whether it lies along an edge of a picture of this shape, as the shadow of a scanner's lid does."""
        height, width = shape
        left, top, right, bottom = self.box
        along_x = (top == 0 or bottom == height) and self.width > 0.85 * width and self.height < 0.25 * height
        along_y = (left == 0 or right == width) and self.height > 0.85 * height and self.width < 0.25 * width
        at_edge = left == 0 or top == 0 or right == width or bottom == height
        return along_x or along_y or (at_edge and self.inner_area < MIN_INNER_SHARE * self.area)

    def goes_across(self, shape: tuple[int, ...]) -> bool:
        """Return whether it reaches two opposite edges of a picture of this shape."""
        height, width = shape
        left, top, right, bottom = self.box
        return (left == 0 and right == width) or (top == 0 and bottom == height)

    def is_level(self) -> bool:
        """Return whether it may be a ruled line, by its box."""
        return self.width > 5 * self.height

    def is_neighbour(self, main: "Part", least: float = NEIGHBOUR_SHARE) -> bool:
        """Return whether it stands beside the main part: on the same line, apart, and as tall as another digit.

        Args:
            main: the other part.
            least: share of the taller one's height that both have in common, 0 to 1; less than a digit's for a line.
        """
        tall = max(self.height, main.height)
        shared = min(self.box[3], main.box[3]) - max(self.box[1], main.box[1])
        apart = max(self.box[0] - main.box[2], main.box[0] - self.box[2])
        return shared > least * tall and apart > NEIGHBOUR_GAP * min(self.height, main.height)

    def is_rule(self, main: "Part") -> bool:
        """Return whether it is a line ruled above or below the main part."""
        above_or_below = self.box[1] >= main.box[3] or self.box[3] <= main.box[1]
        return above_or_below and self.width > 0.8 * main.width and self.is_level()


@dataclass(frozen=True, slots=True)
class Strokes:
    """The chosen strokes.

    Attributes:
        mask: uint8 (height, width), 255 on the strokes.
        box: left, top, right, bottom of the mask; None where there is nothing.
        parts: boxes of the connected parts that were chosen, largest first.
        others: boxes of parts of a digit's size that were left out.
        specks: number of small parts that were left out.
    """

    mask: Grey
    box: Box | None
    parts: tuple[Box, ...]
    others: tuple[Box, ...]
    specks: int


def choose(contrast: Grey, levels: Levels) -> Strokes:
    """Choose the strokes of one digit in a picture of contrasts, uint8 (height, width), 0 = paper."""
    if not levels.ink:
        return _nothing(contrast)
    strokes = _choose(contrast, levels, levels.threshold(*WEAK))
    core = levels.threshold(*CORE)
    if np.count_nonzero(contrast[strokes.mask > 0] > core) < MIN_CORE_SHARE * cv2.countNonZero(strokes.mask):
        return _choose(contrast, levels, core)
    return strokes


def _choose(contrast: Grey, levels: Levels, weakest: float) -> Strokes:
    """Choose among the parts whose pixels are above `weakest`."""
    _, weak = cv2.threshold(contrast, weakest, 255, cv2.THRESH_BINARY)
    # A work picture of 384x384 has room for 36,864 parts.
    count, labels, stats, _ = cv2.connectedComponentsWithStats(weak, connectivity=8, ltype=cv2.CV_16U)
    strong = contrast > levels.threshold(*STRONG)
    inked = np.bincount(labels[strong], minlength=count)
    band = max(round(EDGE_BAND * min(contrast.shape)), 1)
    inner = slice(band, -band), slice(band, -band)
    inside = np.bincount(labels[inner][strong[inner]], minlength=count)
    parts = [
        Part(index, (int(x), int(y), int(x + w), int(y + h)), int(inked[index]), int(inside[index]))
        for index, (x, y, w, h, area) in enumerate(stats)
        if index and inked[index] > MIN_STRONG_SHARE * area
    ]
    kept = [part for part in parts if not part.is_frame(contrast.shape) and part.side >= MIN_SIDE * max(contrast.shape)]
    if not kept:
        return _nothing(contrast)
    kept, apart = _leave_frames(_leave_lines(kept, labels), labels)
    chosen, others = _group(kept, apart, labels)
    boxes = tuple(part.box for part in chosen)
    box = union_of(boxes)
    wanted = np.zeros(count, np.uint8)
    wanted[[part.index for part in chosen]] = 255
    mask = np.zeros_like(contrast)
    cut = slice(box[1], box[3]), slice(box[0], box[2])
    mask[cut] = wanted[labels[cut]]
    return Strokes(mask, box, boxes, tuple(part.box for part in others), len(parts) - len(chosen) - len(others))


def _nothing(contrast: Grey) -> Strokes:
    return Strokes(np.zeros_like(contrast), None, (), (), 0)


def _leave_lines(kept: list[Part], labels: Grey) -> list[Part]:
    """Return the parts without lines, which may be larger than the digit and would be taken for the main part.

    A line that is all there is, but for specks, or beside which something as tall stands, may be a 1.
    """
    shape = labels.shape
    narrow = [part for part in kept if part.is_level() or part.goes_across(shape)]
    narrow = [part for part in narrow if _is_line(part, labels, RULE_SHARE)]
    rest = [part for part in kept if part not in narrow]
    main = max(rest, key=lambda part: part.area * part.side, default=None)
    if main is None or main.side < SPECK_SHARE * shape[0]:
        return kept
    ours = [part for part in narrow if not part.is_rule(main)]
    return rest + [part for part in ours if part.is_neighbour(main) or not part.goes_across(shape)]


def _leave_frames(kept: list[Part], labels: Grey) -> tuple[list[Part], list[Part]]:
    """Return the parts, the main one first, without those drawn around it, and those that may be another digit."""
    rest = sorted(kept, key=lambda part: -part.area * part.side)
    around = [part for part in rest if part is rest[0] or part.surrounds(rest[0])]
    for part in sorted(around, key=lambda part: -part.side)[:MAX_FRAMES]:
        inner, rectangular = _fillings(part, rest, labels)
        if rectangular or not all(_is_line(filling, labels) for filling in inner):
            rest.remove(part)
        elif inner:
            return rest, inner if part is rest[0] else [part]
    return rest, []


def _fillings(outer: Part, rest: list[Part], labels: Grey) -> tuple[list[Part], bool]:
    """Return the parts that fill holes of the outer one, and whether such a hole is a rectangle."""
    inside = [part for part in rest if part.side >= MIN_FILLING_SHARE * outer.side and outer.surrounds(part)]
    if not inside:
        return [], False
    holes, sides, parts_by_hole = _sort_into_holes(outer, inside, labels)
    found, rectangular = list[Part](), False
    for hole, parts in parts_by_hole.items():
        is_rectangle = _is_rectangle(_where(holes == hole))
        share = RECTANGLE_FILL_SHARE if is_rectangle else HOLE_FILL_SHARE
        fillings = [part for part in parts if part.side >= share * sides[hole]]
        found += fillings
        rectangular |= is_rectangle and bool(fillings)
    return found, rectangular


def _sort_into_holes(outer: Part, inside: list[Part], labels: Grey) -> tuple[Grey, Grey, dict[int, list[Part]]]:
    """Return the holes of the outer part, labelled, the longer side of each, and what lies in them."""
    paper = cv2.copyMakeBorder(cv2.bitwise_not(outer.mask(labels)), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=255)
    _, holes, stats, _ = cv2.connectedComponentsWithStats(paper, connectivity=4)
    found = dict[int, list[Part]]()
    for part in inside:
        # Where its first pixel lies.
        y, x = np.unravel_index(part.mask(labels).argmax(), (part.height, part.width))
        hole = int(holes[y + part.box[1] - outer.box[1] + 1, x + part.box[0] - outer.box[0] + 1])
        found.setdefault(hole, []).append(part)
    found.pop(int(holes[0, 0]), None)  # what lies beside the outer part, within its box
    return holes, stats[:, cv2.CC_STAT_WIDTH : cv2.CC_STAT_AREA].max(1), found


def _is_rectangle(mask: Grey) -> bool:
    width, height = _turned_box(mask)
    return cv2.countNonZero(mask) > RECTANGLE_SHARE * width * height


def _is_line(part: Part, labels: Grey, share: float = LINE_SHARE) -> bool:
    width, length = sorted(_turned_box(part.mask(labels)))
    return width < share * length


def _turned_box(mask: Grey) -> tuple[float, float]:
    """Return both sides of the smallest box around the mask, in pixels, however it is turned."""
    _, (width, height), _ = cv2.minAreaRect(cv2.findNonZero(mask))
    return width + 1, height + 1


def _group(kept: list[Part], apart: list[Part], labels: Grey) -> tuple[list[Part], list[Part]]:
    """Return the parts that belong to the first, the main one, largest first, and others of its size or `apart`."""
    main, *rest = kept
    chosen, others = [main], list[Part]()
    # Beside a line, such as a pencil, a smaller part may be the digit.
    least_other = (SPECK_SHARE if _is_line(main, labels) else OTHER_SHARE) * main.side
    for part in sorted(rest, key=lambda part: -part.area):
        if part.side < SPECK_SHARE * main.side or part.is_rule(main):
            continue
        near = gap_between(part.box, union_of([other.box for other in chosen])) <= GAP_SHARE * main.side
        is_flag = part.width > part.height and main.height < FLAGGED * main.width
        least = NEIGHBOUR_SHARE if is_flag else BESIDE_SHARE
        near = near and not part.is_neighbour(main, least) and part not in apart
        if near:
            chosen.append(part)
        elif part.side >= least_other or part in apart:
            others.append(part)
    return chosen, others


def _where(found: Grey) -> Grey:
    """Return 255 where this is true, else 0: uint8."""
    return found.astype(np.uint8) * np.uint8(255)
