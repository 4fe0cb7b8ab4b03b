"""Recognises pictures that already have MNIST's form, which must reach the model unchanged.

Must not know: files, formats, how ink is found.
"""

import cv2

from serving.preprocess.grey import Grey

# Over MNIST's 70,000 digits: the centre of mass lies in 13.47 to 14.51, the longer side of the ink is 19 or 20 pixels,
# the darkest ink is 254 or 255, and at least 55 % of the pixels are 0.
CENTRE_PIXELS = (13.4, 14.6)
LONG_SIDE_PIXELS = (19, 20)
MIN_PEAK = 254
MIN_PAPER_SHARE = 0.5


def recognise(grey: Grey) -> tuple[Grey, bool] | None:
    """Return the picture with ink 255 and whether it came as a negative, or None where the form is another.

    Args:
        grey: uint8, any shape (height, width).
    """
    if grey.shape != (28, 28):
        return None
    negative = 2 * cv2.countNonZero(grey) > grey.size
    image = cv2.bitwise_not(grey) if negative else grey
    return (image, negative) if _has_form(image) else None


def _has_form(image: Grey) -> bool:
    if cv2.countNonZero(image) > (1 - MIN_PAPER_SHARE) * image.size or image.max() < MIN_PEAK:
        return False
    _, _, width, height = cv2.boundingRect(image)
    if not LONG_SIDE_PIXELS[0] <= max(width, height) <= LONG_SIDE_PIXELS[1]:
        return False
    moments = cv2.moments(image)
    lowest, highest = CENTRE_PIXELS
    return all(lowest <= moments[name] / moments["m00"] <= highest for name in ("m10", "m01"))
