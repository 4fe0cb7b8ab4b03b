"""Any picture -> the 28x28 form in which MNIST was made, and what speaks against a digit in it.

Must not know: models, transports.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from serving.preprocess import mnist_form
from serving.preprocess.decode import LargePicture, decode, decode_colours
from serving.preprocess.digit import draw
from serving.preprocess.grey import Box, Grey
from serving.preprocess.ink import Ink, find_ink
from serving.preprocess.verdict import reasons_against
from serving.reasons import BLANK

__all__ = ["LargePicture", "Prepared", "prepare"]

# Of 255: what stands out of its paper by its colour alone is ink from this contrast on. Empty paper has up to 39, where
# coarse grain and light that is warm on one side make a small JPEG; of the pairs of a painting program's palette that
# are equally light one has 32, all others 58 and more.
MIN_COLOUR_CONTRAST = 45.0

Polarity = Literal["dark_on_light", "light_on_dark"]

# A request is one thread's work: OpenCV's own pool would compete with the other requests for the same cores.
cv2.setNumThreads(1)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the model sees of a picture, and how it was found.

    Attributes:
        image: uint8, shape (28, 28), 0 = paper, 255 = ink.
        blank: no ink was found; `image` is all 0.
        polarity: which of ink and paper was taken for the darker one, by however little.
        box: left, top, right, bottom (the last two exclusive) of the ink, in pixels of the upright picture.
        size: width and height of the upright picture, in pixels.
        reasons: what speaks against one digit: "blank", "several_digits", "not_a_digit"; empty if nothing does.
    """

    image: npt.NDArray[np.uint8]
    blank: bool
    polarity: Polarity
    box: Box | None
    size: tuple[int, int]
    reasons: tuple[str, ...]


def prepare(data: bytes, max_pixels: int = 50_000_000, pixels_here: int | None = None) -> Prepared:
    """Find the digit in an encoded picture and draw it as MNIST would have it.

    A 28x28 grey picture that already has MNIST's form, or its negative, passes unchanged.

    Args:
        data: a PNG, JPEG (also MPO), GIF, BMP, TIFF or WebP file; the first frame counts.
        max_pixels: most pixels, width times height, that are decoded.
        pixels_here: most pixels that are decoded now; None = all that are decoded at all.

    Raises:
        LargePicture: it has more than `pixels_here`.
        UnreadablePicture: another format, or a broken file.
        TooLarge: more than `max_pixels`.
    Source: LeCun et al., MNIST: size-normalised into 20x20, centre of mass in the centre of 28x28.
    """
    picture = decode(data, max_pixels, pixels_here)
    if (ready := mnist_form.recognise(picture.grey)) is not None:
        image, negative = ready
        left, top, width, height = cv2.boundingRect(image)
        box = (left, top, left + width, top + height)
        return Prepared(image, False, "dark_on_light" if negative else "light_on_dark", box, picture.size, ())
    grey, ink = picture.grey, find_ink(picture.grey)
    if ink.strokes.box is None and picture.in_colour:
        grey, ink = _look_at_colours(data, max_pixels) or (grey, ink)
    polarity: Polarity = "dark_on_light" if ink.dark else "light_on_dark"
    if ink.strokes.box is None:
        return Prepared(np.zeros((28, 28), np.uint8), True, polarity, None, picture.size, (BLANK,))
    drawing = draw(grey, ink)
    box = _box_in_picture(ink, grey.shape[1], picture.size)
    return Prepared(drawing.image, False, polarity, box, picture.size, reasons_against(ink.strokes, drawing))


def _look_at_colours(data: bytes, max_pixels: int) -> tuple[Grey, Ink] | None:
    """Return the differences of a picture's colours and the ink in them; None where there is none."""
    tones = decode_colours(data, max_pixels).grey
    ink = find_ink(tones)
    return (tones, ink) if ink.levels.ink >= MIN_COLOUR_CONTRAST else None


def _box_in_picture(ink: Ink, grey_width: int, size: tuple[int, int]) -> Box:
    assert ink.strokes.box is not None
    scale = size[0] / grey_width / ink.scale
    left, top, right, bottom = (round(edge * scale) for edge in ink.strokes.box)
    return max(left, 0), max(top, 0), min(right, size[0]), min(bottom, size[1])
