"""The outline of the largest body in a picture of two classes, and its straight sides.

Must not know: what the body is.
"""

import cv2
import numpy as np

from serving.preprocess.grey import Grey

# Grain, and a thing that touches the body, are no part of it.
OPENING = np.ones((5, 5), np.uint8)


def largest_outline(body: Grey, opening: Grey = OPENING) -> Grey | None:
    """Return the outline of the largest part of what is not 0 in `body`, as points (N, 1, 2); None where nothing is."""
    opened = cv2.morphologyEx(body, cv2.MORPH_OPEN, opening)
    outlines, _ = cv2.findContours(opened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return max(outlines, key=cv2.contourArea, default=None)


def corners_of(hull: Grey, bulge_share: float) -> Grey:
    """Return the corners of a convex outline, points (N, 1, 2), whose sides bulge by this share of its length."""
    return cv2.approxPolyDP(hull, bulge_share * cv2.arcLength(hull, True), True)
