"""The outline of the largest body in a picture of two classes, its straight sides, and how sharp its border is.

Must not know: what the body is.
"""

import cv2
import numpy as np

from serving.preprocess.background import GRADES
from serving.preprocess.grey import Grey, histogram_of

# Grain, and a thing that touches the body, are no part of it.
OPENING = np.ones((5, 5), np.uint8)
EDGE = np.ones((3, 3), np.uint8)


def largest_outline(body: Grey, opening: Grey = OPENING) -> Grey | None:
    """Return the outline of the largest part of what is not 0 in `body`, as points (N, 1, 2); None where nothing is."""
    opened = cv2.morphologyEx(body, cv2.MORPH_OPEN, opening)
    outlines, _ = cv2.findContours(opened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return max(outlines, key=cv2.contourArea, default=None)


def corners_of(hull: Grey, bulge_share: float) -> Grey:
    """Return the corners of a convex outline, points (N, 1, 2), whose sides bulge by this share of its length."""
    return cv2.approxPolyDP(hull, bulge_share * cv2.arcLength(hull, True), True)


def is_border_soft(picture: Grey, body: Grey, step: float, share: float) -> bool:
    """Return whether the border of what is not 0 in `body` is soft, as that of light and shade is.

    Args:
        picture: uint8 (height, width).
        body: uint8 like `picture`.
        step: share of the difference between both sides, by which the levels of a sharp border differ over two pixels.
        share: of the border, of which at most so much differs less where it is sharp.
    """
    border = cv2.dilate(body, EDGE) - cv2.erode(body, EDGE)
    difference = abs(cv2.mean(picture, body)[0] - cv2.mean(picture, (body == 0).astype(np.uint8))[0])
    steps = histogram_of(cv2.morphologyEx(picture, cv2.MORPH_GRADIENT, EDGE), border)
    return bool(steps[step * difference > GRADES].sum() > share * steps.sum())
