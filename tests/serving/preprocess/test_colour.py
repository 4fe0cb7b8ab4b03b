"""Ink that is as light as its paper, seen by its colour."""

import sys
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageChops

from serving.preprocess import prepare
from serving.preprocess.colour import differences
from serving.preprocess.decode import decode, decode_colours
from serving.preprocess.ink import find_ink
from tests.pictures import encode, png
from tests.serving.preprocess.conftest import Read

MAX_PIXELS = 50_000_000
# Ink and paper of one brightness, or nearly.
PAIRS = [
    ((220, 30, 30), (20, 130, 50)),
    ((127, 127, 127), (0, 162, 232)),
    ((34, 177, 76), (0, 162, 232)),
    ((237, 28, 36), (63, 72, 204)),
    ((255, 201, 14), (195, 195, 195)),
    ((255, 174, 201), (153, 217, 234)),
    ((255, 242, 0), (239, 228, 176)),
    ((200, 191, 231), (153, 217, 234)),
]
PAIRS += [(paper, ink) for ink, paper in PAIRS[:3]]


def drawn(digit: Any, ink: Any, paper: Any, side: int = 160) -> Any:
    """Return a picture of the digit in these colours: uint8 (side, side, 3)."""
    share = np.pad(cv2.resize(digit, (side * 3 // 4, side * 3 // 4), interpolation=cv2.INTER_LINEAR), side // 8) / 255
    return np.rint(share[..., None] * ink + (1 - share[..., None]) * paper).astype(np.uint8)


@pytest.mark.parametrize(("ink", "paper"), PAIRS)
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_ink_as_light_as_its_paper_is_read_by_its_colour(
    ink: Any, paper: Any, form: str, test_digits: Any, read_all: Read
) -> None:
    images, labels = test_digits
    files = [encode(drawn(digit, ink, paper), form) for digit in images[:25]]
    brightness = find_ink(decode(files[0], MAX_PIXELS).grey)
    assert brightness.strokes.box is None
    assert sum(np.equal(read_all(files), labels[:25])) >= 24


@pytest.mark.parametrize(
    ("form", "mode"), [("PNG", "RGBA"), ("PNG", "P"), ("GIF", "P"), ("WEBP", "RGB"), ("TIFF", "CMYK")]
)
def test_its_colour_is_seen_in_every_format(form: str, mode: str, seven: Any, read_all: Read) -> None:
    picture = Image.fromarray(drawn(seven, *PAIRS[3])).convert(mode)
    assert read_all([encode(picture, form)]) == [7]


def test_its_colour_is_seen_on_a_paper_with_transparent_corners(seven: Any, read_all: Read) -> None:
    picture = Image.fromarray(drawn(seven, *PAIRS[0])).convert("RGBA")
    picture.paste((0, 0, 0, 0), (0, 0, 20, 20))
    picture.paste((0, 0, 0, 0), (140, 140, 160, 160))
    assert read_all([png(np.asarray(picture))]) == [7]


def test_its_colour_is_seen_upright_and_the_box_is_in_the_full_picture(seven: Any, read_all: Read) -> None:
    upright = Image.fromarray(drawn(seven, *PAIRS[0], side=1600)).crop((0, 0, 1600, 1500))
    exif = Image.Exif()
    exif[274] = 6  # to be turned by a quarter, clockwise
    data = encode(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif)
    prepared = prepare(data)
    assert prepared.size == (1600, 1500)
    written = ImageChops.difference(upright, Image.new("RGB", upright.size, PAIRS[0][1])).convert("L")
    box = written.point(lambda level: 255 * (level > 25)).getbbox()
    assert prepared.box == pytest.approx(box, abs=12)
    assert read_all([data]) == [7]


def test_its_polarity_is_that_of_the_little_by_which_it_is_darker(seven: Any) -> None:
    dark, light = (220, 30, 30), (20, 140, 50)
    assert prepare(png(drawn(seven, dark, light))).polarity == "dark_on_light"
    assert prepare(png(drawn(seven, light, dark))).polarity == "light_on_dark"


def _grains(rng: np.random.Generator, side: int) -> list[Any]:
    """Return grains of colour: weak and strong from pixel to pixel, and in blotches."""
    noise = rng.normal(0, 1, (side, side, 3))
    blotches = cv2.GaussianBlur(noise, (0, 0), side / 40)
    return [3 * noise, 10 * noise, 10 * blotches / blotches.std()]


def _as_light(colours: Any) -> Any:
    """Return the same differences of colour without those of brightness, by ITU-R BT.601."""
    return colours - (colours @ (0.299, 0.587, 0.114))[..., None]


@pytest.mark.parametrize(
    "options", [{"form": "PNG"}, {"form": "JPEG", "quality": 40}, {"form": "JPEG", "quality": 60}, {"form": "JPEG"}]
)
@pytest.mark.parametrize("side", [60, 400])
def test_paper_in_light_of_uneven_colour_with_coloured_grain_is_blank(side: int, options: Any) -> None:
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    even = np.zeros((side, side, 3))
    warm_on_one_side = x[..., None] * (20, 0, -20)
    yellow_around = (x**2 + y**2)[..., None] * (-10, -20, -40)
    for light in (even, warm_on_one_side, yellow_around):
        for grain in _grains(np.random.default_rng(side), side):
            page = np.clip(205 + _as_light(light + grain), 0, 255).astype(np.uint8)
            assert prepare(encode(page, **options)).reasons == ("blank",)


def test_colours_are_looked_at_where_there_are_some_and_nothing_was_seen(
    large: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []

    def count(data: bytes, max_pixels: int) -> Any:
        looked.append(len(data))
        return decode_colours(data, max_pixels)

    monkeypatch.setattr(sys.modules["serving.preprocess"], "decode_colours", count)
    empty = np.full((90, 90), 200, np.uint8)
    assert prepare(png(np.dstack([large] * 3))).box
    for form in ("PNG", "JPEG"):
        assert prepare(encode(empty, form)).blank
    for mode in ("1", "LA", "I;16", "F"):
        assert prepare(encode(Image.new(mode, (90, 90)), "TIFF")).blank
    assert not looked
    assert prepare(png(np.dstack([empty] * 3))).blank
    assert len(looked) == 1


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 500, 3), (500, 1, 4), (2, 3, 3)])
def test_one_colour_has_no_differences(shape: tuple[int, ...]) -> None:
    assert (differences(np.full(shape, (200, 40, 90, 9)[: shape[2]], np.uint8)) == 128).all()


def test_the_differences_are_those_of_the_colours_as_far_apart_as_they_are() -> None:
    pixels = np.zeros((90, 90, 3), np.uint8)
    pixels[:] = PAIRS[1][1]
    pixels[20:40, 20:60] = PAIRS[1][0]
    y_cr_cb = cv2.cvtColor(pixels, cv2.COLOR_RGB2YCrCb).astype(float)
    apart = np.hypot(*(y_cr_cb[30, 30] - y_cr_cb[0, 0])[1:])
    tones = differences(pixels)
    assert tones.mean() == pytest.approx(128, abs=1)
    assert len(np.unique(tones)) == 2
    # The ink is darker by a trifle, and much less of it is there.
    assert int(tones[0, 0]) - int(tones[30, 30]) == pytest.approx(
        apart * np.sign(y_cr_cb[0, 0, 0] - y_cr_cb[30, 30, 0]), abs=2
    )
