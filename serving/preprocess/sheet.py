"""Finds a sheet of paper that lies on a table of another brightness.

Must not know: files, formats, MNIST's form, where the ink is on the paper.
"""

import cv2
import numpy as np

from serving.preprocess.grey import Grey

# Of the picture: a smaller body is a digit. Of the sheet: what is written on it leaves as much of it free.
MIN_SHEET_SHARE = 0.1
MIN_PAPER_SHARE = 0.7
# Of the sheet's longer side: what is written on it has at least this.
MIN_WRITING_SHARE = 0.1
# Grey levels: where the surroundings are as even as a computer draws them and the hole is like them, it is a broad 0's.
EVEN_SPREAD = 1.5
MIN_DIFFERENCE = 8
# How far a side may bulge, of the outline's length, and how much of the outline its straight sides enclose: of a circle
# five or six chords enclose 0.83 at most.
BULGE_SHARE = 0.03
STRAIGHT_SHARE = 0.93
# A corner may be folded or cut off.
CORNERS = range(4, 7)
# The edge of the sheet, in pixels of the small picture, is not looked at.
EDGE = np.ones((5, 5), np.uint8)


def find_sheet(small: Grey, dark: bool) -> Grey | None:
    """Return where a sheet is, 255 on it, uint8 like `small`; None where none is.

    Its table was taken for the paper, so that the "ink" is one body with straight sides, and with holes: the writing.

    Args:
        small: uint8 (height, width), without shading.
        dark: whether the ink was taken for the darker one.
    """
    kind = cv2.THRESH_BINARY_INV if dark else cv2.THRESH_BINARY
    _, body = cv2.threshold(small, 0, 255, kind + cv2.THRESH_OTSU)
    outlines, _ = cv2.findContours(body, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    outline = max(outlines, key=cv2.contourArea, default=None)
    if outline is None:
        return None
    hull = cv2.convexHull(outline)
    if not _is_sheet(outline, hull, small):
        return None
    sheet = cv2.drawContours(np.zeros_like(small), [hull], -1, 255, -1)
    inner = cv2.erode(sheet, EDGE)
    paper, writing = cv2.bitwise_and(sheet, body), cv2.bitwise_and(inner, cv2.bitwise_not(body))
    if cv2.countNonZero(paper) < MIN_PAPER_SHARE * cv2.countNonZero(sheet):
        return None
    if max(cv2.boundingRect(writing)[2:]) < MIN_WRITING_SHARE * max(cv2.boundingRect(outline)[2:]):
        return None
    low, table, high = np.percentile(small[sheet == 0], (25, 50, 75))
    is_hole = high - low < EVEN_SPREAD and abs(np.median(small[writing > 0]) - table) < MIN_DIFFERENCE
    return None if is_hole else inner


def _is_sheet(outline: Grey, hull: Grey, small: Grey) -> bool:
    """Return whether the body with this outline and hull is large, has straight sides and lies within the picture.

    A page that fills the picture but for a shadow reaches its edge.
    """
    left, top, width, height = cv2.boundingRect(outline)
    if not left or not top or left + width == small.shape[1] or top + height == small.shape[0]:
        return False
    corners = cv2.approxPolyDP(hull, BULGE_SHARE * cv2.arcLength(hull, True), True)
    area = cv2.contourArea(hull)
    straight = len(corners) in CORNERS and min(map(cv2.contourArea, (corners, outline))) > STRAIGHT_SHARE * area
    return straight and area > MIN_SHEET_SHARE * small.size
