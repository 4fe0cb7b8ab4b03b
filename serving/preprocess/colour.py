"""Shows ink that is as light as its paper by the difference of their colours.

Must not know: files, formats, digits.
"""

import cv2
import numpy as np

from serving.preprocess.grey import Grey, shrink

# The colours are looked at in a picture of at most this longer side.
COLOUR_SIDE_PIXELS = 96


def differences(pixels: Grey) -> Grey:
    """Return the axis of colour along which a picture varies most in place of its brightness.

    The mean is 128; what is brighter is on the side that the picture's brighter pixels are on.

    Args:
        pixels: uint8, shape (height, width, 3 or 4), red, green, blue, anything.

    Returns:
        uint8, shape (height, width).
    Source: ITU-R BT.601, the differences of red and of blue from the brightness.
    """
    colours = cv2.cvtColor(pixels, cv2.COLOR_RGB2YCrCb)
    small = shrink(colours, COLOUR_SIDE_PIXELS).reshape(-1, 3).astype(np.float32)
    middle = small.mean(0)
    covariance = (small - middle).T @ (small - middle)
    _, axes = np.linalg.eigh(covariance[1:, 1:])
    axis = axes[:, -1]
    if axis @ covariance[1:, 0] < 0:
        axis = -axis
    tones: Grey = cv2.transform(colours, np.array([[0.0, *axis, 128 - axis @ middle[1:]]]))
    return tones
