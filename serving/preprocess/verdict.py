"""What speaks against one digit, by the form of the ink alone.

Must not know: models, files, formats.
"""

import cv2
import numpy as np

from serving.preprocess.digit import DIGIT_PIXELS, FINE, FINE_PIXELS, Drawing
from serving.preprocess.grey import Grey
from serving.preprocess.strokes import Strokes
from serving.reasons import NOT_A_DIGIT, SEVERAL_DIGITS

# Widest strokes, in MNIST's pixels, and longest way of the pen, in boxes. MNIST's training digits, enlarged: median
# 2.8 and 1.8, 99.5 % below 5.8 and 2.6; a slashed 0 has 4.1.
MAX_STROKE_PIXELS = 8.5
MAX_LENGTH = 4.4
# A body without strokes: broad, and shorter than the box in which it lies.
BODY_STROKE_PIXELS = 6.0
BODY_LENGTH = 0.9
# A slashed 8 has four enclosed areas; MNIST's digits 3 at most. Smaller ones, of the box, are gaps in the ink.
MAX_HOLES = 4
HOLE_SHARE = 0.0015
# A label with something written on it is no 0, though it looks like a broad one. It fills this share of its hull at
# least, and this share of it at most is writing, which is here near to its edge and there far, by this deviation of the
# mean, while a pen is as broad everywhere; where it is more than so little, it also fills less of its own hull than the
# hole of a 0 does. Of MNIST's 5,923 training 0s, as paint, 1 is refused for it.
LABEL_SHARE, WRITING_SHARE, WRITING_DEVIATION = 0.97, 0.21, 0.24
LITTLE_SHARE, WRITING_FILL_SHARE = 0.12, 0.9
RIM = np.ones((3, 3), np.uint8)
# The strokes of a digit, broken by a dry pen.
MAX_PARTS = 5
# The widest digit of MNIST is 1.8 times as wide as it is high.
MAX_ASPECT = 2.6


def reasons_against(strokes: Strokes, drawing: Drawing) -> tuple[str, ...]:
    """Return the reasons: `several_digits`, `not_a_digit`."""
    several = (SEVERAL_DIGITS,) if strokes.others else ()
    return several if _is_digit_like(strokes, drawing) else (*several, NOT_A_DIGIT)


def _is_digit_like(strokes: Strokes, drawing: Drawing) -> bool:
    _, _, width, height = cv2.boundingRect(drawing.fine)
    if not width or len(strokes.parts) > MAX_PARTS or width > MAX_ASPECT * height:
        return False
    stroke = drawing.stroke_pixels
    length = cv2.countNonZero(drawing.fine) / FINE**2 / max(stroke, 1 / FINE) / DIGIT_PIXELS
    if stroke > MAX_STROKE_PIXELS or length > MAX_LENGTH:
        return False
    if stroke > BODY_STROKE_PIXELS and length < BODY_LENGTH:
        return False
    return _count_holes(drawing.fine) <= MAX_HOLES and not _is_label(drawing.fine)


def _is_label(binary: Grey) -> bool:
    """Return whether it is a body without dents in which something is cut out that is not the hole of a 0."""
    padded = cv2.copyMakeBorder(binary, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    outlines, _ = cv2.findContours(padded, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=cv2.contourArea)
    if cv2.contourArea(outline) < LABEL_SHARE * cv2.contourArea(cv2.convexHull(outline)):
        return False
    body = cv2.drawContours(np.zeros_like(padded), [outline], -1, 255, -1)
    hole = cv2.bitwise_and(body, cv2.bitwise_not(padded))
    holes, _ = cv2.findContours(hole, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    share = cv2.countNonZero(hole) / cv2.countNonZero(body)
    if len(holes) != 1 or share > WRITING_SHARE:
        return False
    around = cv2.drawContours(np.zeros_like(hole), [cv2.convexHull(holes[0])], -1, 255, -1)
    if share > LITTLE_SHARE and cv2.countNonZero(hole) > WRITING_FILL_SHARE * cv2.countNonZero(around):
        return False
    breadth = cv2.distanceTransform(body, cv2.DIST_L2, 5)[(hole > 0) & (cv2.erode(hole, RIM) == 0)]
    return bool(breadth.std() > WRITING_DEVIATION * breadth.mean())


def _count_holes(binary: Grey) -> int:
    paper = cv2.copyMakeBorder(cv2.bitwise_not(binary), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=255)
    _, _, stats, _ = cv2.connectedComponentsWithStats(paper, connectivity=4, ltype=cv2.CV_16U)
    outside = 1  # label 0 is the ink
    return int((stats[1:, cv2.CC_STAT_AREA] > HOLE_SHARE * FINE_PIXELS**2).sum()) - outside
