"""Pictures of known content, drawn to train on: digits as hands, pens and cameras give them, and what is no digit.

Must not know: networks. Whatever is drawn here passes through the service's own preprocessing, so that training sees
what the service will see.
"""

import string
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from serving.preprocess import prepare

Picture = npt.NDArray[np.uint8]
Rng = np.random.Generator

# Fonts to train on; STIX, OpenCV's and Pillow's own are left for tests, which so meet letters of unknown shape.
FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique", "DejaVuSansDisplay"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSerifDisplay"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("cmr10", "cmss10", "cmtt10", "cmb10", "cmmi10"),
)
# A hand writes these as it writes 0 and 1: nothing is to be learnt from calling them no digit.
SAME_AS_DIGITS = frozenset("OoIl")
# These differ from 5, 2, 9, 6 and 8 by corners and tails only: enough of them to know, too few to doubt real digits.
LIKE_DIGITS = frozenset("SsZzqgbB")
LIKE_DIGITS_KEPT = 0.5
LETTERS = tuple(letter for letter in string.ascii_letters if letter not in SAME_AS_DIGITS)
SIDE_PX = 96
NONE: Picture = np.empty((0, 28, 28), np.uint8)


def prepared(draw: Callable[[], Picture], count: int) -> Picture:
    """Return `count` pictures in which the service sees ink: uint8 (count, 28, 28), 0 = paper, 255 = ink.

    Args:
        draw: gives the next picture: uint8 (H, W) in grey; it is asked again where there is no ink.
        count: how many to return.
    """
    found: list[Picture] = []
    while len(found) < count:
        result = _prepared(draw())
        if result is not None:
            found.append(result)
    return np.stack(found) if found else NONE


def _prepared(picture: Picture) -> Picture | None:
    """Return the picture as the service would give it to a network: uint8 (28, 28), or None where it sees no ink."""
    result = prepare(cv2.imencode(".png", picture)[1].tobytes())
    return None if result.blank else result.image


def outliers(count: int, rng: Rng) -> Picture:
    """Return pictures of letters (6 in 10), scribbles (2) and textures (2): uint8 (count, 28, 28)."""
    shares = (count * 6 // 10, count * 2 // 10, count - count * 6 // 10 - count * 2 // 10)
    makers = (letter, scribble, texture)
    parts = [prepared(partial(maker, rng), share) for maker, share in zip(makers, shares, strict=True)]
    return np.concatenate(parts)


def printed_digits(count: int, rng: Rng) -> tuple[Picture, npt.NDArray[np.int64]]:
    """Return printed digits, so that an S of a font is told from its 5: uint8 (count, 28, 28), int64 (count,)."""
    labels = rng.integers(0, 10, count)
    pictures = [prepared(partial(_glyph, str(label), rng), 1) for label in labels]
    return np.concatenate([NONE, *pictures]), labels


def redrawn(images: Picture, rng: Rng) -> Picture:
    """Return digits as they come back from paper, screen and camera.

    Args:
        images: uint8 (N, 28, 28), 0 = paper, 255 = ink.
        rng: decides pen, size, place, light and grain.

    Returns:
        uint8 (N, 28, 28), in the same order.
    """
    return np.concatenate([NONE, *(prepared(partial(picture_of, image, rng), 1) for image in images)])


def sent(images: Picture) -> Picture:
    """Return digits as the service reads them when they are sent as PNG files of 28x28 pixels.

    Args:
        images: uint8 (N, 28, 28), 0 = paper, 255 = ink.

    Returns:
        uint8 (N, 28, 28), in the same order; paper alone where the service sees no ink.
    """
    received = [_prepared(image) for image in images]
    return np.stack([np.zeros((28, 28), np.uint8) if image is None else image for image in received])


def picture_of(image: Picture, rng: Rng) -> Picture:
    """Draw a 28x28 digit with another pen on lit, grainy paper: uint8 (S, S), dark ink, S = 84 to 196 pixels."""
    zoom = int(rng.integers(3, 7))
    large = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
    ink = (cv2.GaussianBlur(large, (0, 0), zoom * 0.5) > rng.uniform(70, 150)).astype(np.uint8) * 255
    ink = _with_pen(ink, int(rng.integers(-zoom // 2, zoom + 1)))
    soft = cv2.GaussianBlur(ink, (0, 0), rng.uniform(0.5, 1.2)).astype(np.float32) / 255
    side = len(soft)
    slope = np.linspace(-1, 1, side, dtype=np.float32)
    paper = rng.uniform(150, 250) + rng.uniform(-25, 25) * slope + rng.uniform(-25, 25) * slope[:, None]
    grain = rng.normal(0, rng.uniform(0, 5), (side, side))
    return np.asarray((paper * (1 - soft * rng.uniform(0.55, 0.95)) + grain).clip(0, 255), np.uint8)


def letter(rng: Rng) -> Picture:
    """Draw one letter of a font: uint8 (96, 96), dark on light."""
    while True:
        character = LETTERS[rng.integers(len(LETTERS))]
        if character not in LIKE_DIGITS or rng.random() < LIKE_DIGITS_KEPT:
            return _glyph(character, rng)


def scribble(rng: Rng) -> Picture:
    """Draw a tangle, a zigzag, a star or a cross of strokes: uint8 (96, 96), dark on light."""
    picture = np.full((SIDE_PX, SIDE_PX), 255, np.uint8)
    thickness = int(rng.integers(2, 8))
    makers = (_tangle, _zigzag, _star, _cross)
    for line in makers[rng.integers(len(makers))](rng):
        points = (line * 16).astype(np.int32)  # 4 fractional bits
        cv2.polylines(picture, [points], False, 0, thickness, cv2.LINE_AA, 4)
    return picture


def texture(rng: Rng) -> Picture:
    """Draw noise, stripes, squares, dots or a filled shape: uint8 (96, 96)."""
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX].astype(np.float32)
    angle, period = rng.uniform(0, np.pi), rng.uniform(6, 40)
    along = (x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period)
    across = (y * np.cos(angle) - x * np.sin(angle)) * (2 * np.pi / period)
    kind = rng.integers(5)
    if kind == 0:
        smooth = cv2.GaussianBlur(rng.normal(size=(SIDE_PX, SIDE_PX)), (0, 0), rng.uniform(1, 12))
        wave = smooth / smooth.std()
    elif kind == 1:
        wave = np.sin(along)
    elif kind == 2:
        wave = np.sin(along) * np.sin(across)
    elif kind == 3:
        wave = np.maximum(np.sin(along), np.sin(across)) * 2 - 1
    else:
        return _blob(rng)
    grey = 127 + 120 * np.tanh(wave * rng.uniform(0.5, 4))
    return np.asarray(grey, np.uint8)


def _glyph(character: str, rng: Rng) -> Picture:
    name = FONTS[rng.integers(len(FONTS))]
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf", 60)
    image = Image.new("L", (SIDE_PX, SIDE_PX), 255)
    ImageDraw.Draw(image).text((SIDE_PX // 2, SIDE_PX // 2), character, font=font, fill=0, anchor="mm")
    return np.array(255 - _with_pen(255 - np.array(image), int(rng.integers(-1, 4))))


def _with_pen(ink: Picture, change_px: int) -> Picture:
    """Thicken, or if negative thin, bright strokes by about so many pixels; no thinning that wipes them out is done."""
    if not change_px:
        return ink
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (abs(change_px) + 1, abs(change_px) + 1))
    changed = cv2.dilate(ink, kernel) if change_px > 0 else cv2.erode(ink, kernel)
    return np.asarray(changed if changed.sum() > 0.3 * ink.sum() else ink, np.uint8)


def _tangle(rng: Rng) -> list[npt.NDArray[np.float64]]:
    """Return a closed-up random walk of 7 to 14 corners, rounded."""
    corners = rng.uniform(16, 80, (int(rng.integers(7, 15)), 2))
    spots = np.linspace(0, len(corners) - 1, 120)
    smooth = np.stack([np.interp(spots, np.arange(len(corners)), corners[:, axis]) for axis in (0, 1)], axis=1)
    kernel = np.ones(9) / 9
    return [np.stack([np.convolve(smooth[:, axis], kernel, "valid") for axis in (0, 1)], axis=1)]


def _zigzag(rng: Rng) -> list[npt.NDArray[np.float64]]:
    count = int(rng.integers(5, 10))
    line = np.stack([np.linspace(14, 82, count), 48 + rng.uniform(8, 34) * np.resize([-1, 1], count)], axis=1)
    return [line if rng.random() < 0.5 else line[:, ::-1]]


def _star(rng: Rng) -> list[npt.NDArray[np.float64]]:
    # Every second corner joined, from five on: a polygon of many corners would be a 0.
    corners = int(rng.integers(3, 8))
    turn = 2 * np.pi / corners * (2 if corners > 4 else 1)
    angles = np.arange(corners + 1) * turn + rng.uniform(0, np.pi)
    return [48 + rng.uniform(20, 36) * np.stack([np.cos(angles), np.sin(angles)], axis=1)]


def _cross(rng: Rng) -> list[npt.NDArray[np.float64]]:
    angles = rng.uniform(0, np.pi) + np.arange(int(rng.integers(2, 5))) * rng.uniform(0.6, 1.5)
    ends = 36 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return [np.stack([48 - end, 48 + end]) for end in ends]


def _blob(rng: Rng) -> Picture:
    """Return the silhouette of an object: a filled shape of 4 to 9 corners."""
    picture = np.full((SIDE_PX, SIDE_PX), 255, np.uint8)
    count = int(rng.integers(4, 10))
    angles = (np.arange(count) + rng.uniform(0, 0.7, count)) * (2 * np.pi / count)
    reach = rng.uniform(10, 24, count)
    corners = 48 + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    cv2.fillPoly(picture, [corners.astype(np.int32)], 0)
    return picture
