"""Flattens a picture with transparency onto the paper that makes its ink visible.

Must not know: files, formats.
"""

import cv2
import numpy as np

from serving.preprocess.grey import Grey

# From this share of opaque pixels on, the picture brings its own paper.
OPAQUE_PAPER_SHARE = 0.6


def flatten(pixels: Grey) -> Grey:
    """Return the picture in grey on a uniform paper.

    Where the transparent part is the paper, dark ink gets white paper and light ink black. Where most of the picture is
    opaque, its own paper goes on into the transparent corners.

    Args:
        pixels: uint8, shape (height, width, 4), red, green, blue, alpha.

    Returns:
        uint8, shape (height, width).
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGBA2GRAY)
    alpha = cv2.extractChannel(pixels, 3)
    _, opaque = cv2.threshold(alpha, 127, 255, cv2.THRESH_BINARY)
    opaque_count = cv2.countNonZero(opaque)
    if opaque_count == alpha.size and cv2.minMaxLoc(alpha)[0] == 255:
        return grey
    if not cv2.countNonZero(alpha):
        return np.full_like(grey, 255)
    mean = cv2.mean(grey, opaque if opaque_count else alpha)[0]
    if opaque_count > OPAQUE_PAPER_SHARE * alpha.size:
        paper = float(np.median(grey[opaque > 0]))
    else:
        paper = 255.0 if mean < 128 else 0.0
    share = 1 / 255
    covered = cv2.multiply(grey, alpha, scale=share)
    return cv2.add(covered, cv2.multiply(cv2.bitwise_not(alpha), np.full_like(alpha, round(paper)), scale=share))
