"""What is cut out of its paper, and ink of several colours, on a transparent canvas."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from serving.preprocess import prepare
from tests.pictures import encode, outline, png
from tests.serving.preprocess.conftest import Classify, Read


def _disc(radius: int) -> Any:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def _strokes(digit: Any, seed: int) -> Any:
    """Return the digit's strokes, 255 on them and 0 elsewhere, in the middle of a canvas: uint8 (436, 436)."""
    return np.pad(outline(digit, 200, np.random.default_rng(seed)), 78)


def _canvas(grey: Any, alpha: Any) -> Any:
    return np.dstack([grey, grey, grey, alpha])


def _with_rim(strokes: Any, rim: int, ink: int, paper: int) -> Any:
    """Return the strokes cut out with a rim of their paper: uint8 (height, width, 4)."""
    return _canvas(np.where(strokes > 0, ink, paper).astype(np.uint8), cv2.dilate(strokes, _disc(rim)))


@pytest.mark.parametrize(("ink", "paper"), [(20, 240), (240, 20)])
@pytest.mark.parametrize("rim", [1, 3, 12, 48])
def test_a_digit_that_is_cut_out_with_a_rim_of_its_paper_is_read(
    rim: int, ink: int, paper: int, test_digits: Any, classify: Classify
) -> None:
    images, labels = test_digits
    prepared = [
        prepare(png(_with_rim(_strokes(digit, seed), rim, ink, paper))) for seed, digit in enumerate(images[:40])
    ]
    found = classify([each.image for each in prepared])
    assert sum(digit == label for digit, label in zip(found, labels[:40].tolist(), strict=True)) >= 38
    assert {each.polarity for each in prepared} == {"dark_on_light" if ink < paper else "light_on_dark"}


def _sticker(strokes: Any) -> Any:
    round_paper = cv2.circle(np.zeros_like(strokes), (218, 218), 160, 255, -1)
    return _canvas(np.where(strokes > 0, 30, 225).astype(np.uint8), round_paper)


def _lifted(strokes: Any) -> Any:
    """Return a photo's digit with a rim of its paper, as a telephone lifts it: shaded, grainy, with a soft edge."""
    cut = _with_rim(strokes, 24, 30, 225)
    grey = cv2.GaussianBlur(cut[..., 0], (0, 0), 1.5) * np.linspace(1, 0.75, cut.shape[1])
    grain = np.random.default_rng(0).normal(0, 5, grey.shape)
    return _canvas(np.clip(grey + grain, 0, 255).astype(np.uint8), cv2.GaussianBlur(cut[..., 3], (0, 0), 2))


@pytest.mark.parametrize("cut", [_sticker, _lifted])
def test_a_sticker_and_a_lifted_subject_are_read(cut: Callable[[Any], Any], test_digits: Any, read_all: Read) -> None:
    images, labels = test_digits
    files = [png(cut(_strokes(digit, seed))) for seed, digit in enumerate(images[:40])]
    right = sum(found == label for found, label in zip(read_all(files), labels[:40].tolist(), strict=True))
    assert right >= 38


@pytest.mark.parametrize("mode", ["LA", "P"])
def test_a_rim_of_paper_is_seen_in_every_mode_with_transparency(mode: str, seven: Any) -> None:
    pixels = _with_rim(_strokes(seven, 0), 24, 20, 240)
    if mode == "LA":
        picture = Image.fromarray(pixels).convert("LA")
    else:
        colours = np.where(pixels[..., 3] > 0, 1 + pixels[..., 0] // 240, 0)
        picture = Image.fromarray(colours.astype(np.uint8)).convert("P")
        picture.putpalette([0] * 3 + [20] * 3 + [240] * 3)
        picture.info["transparency"] = 0
    prepared = prepare(encode(picture))
    assert prepared.polarity == "dark_on_light"
    assert (prepared.image == prepare(png(pixels)).image).all()


def _grain(strokes: Any) -> Any:
    noise = np.random.default_rng(0).normal(110, 80, strokes.shape)
    return _canvas(np.clip(noise, 0, 255).astype(np.uint8), strokes)


def _black_to_light(strokes: Any) -> Any:
    ramp = np.linspace(0, 230, strokes.shape[1]).astype(np.uint8)
    return _canvas(np.tile(ramp, (strokes.shape[0], 1)), strokes)


def _spotted(strokes: Any) -> Any:
    inner = cv2.erode(strokes, _disc(6))
    y, x = np.unravel_index(int(inner.argmax()), inner.shape)
    return _canvas(cv2.circle(np.full_like(strokes, 20), (int(x), int(y)), 5, 240, -1), strokes)


def _lighter_below(strokes: Any, share: float, level: int) -> Any:
    """Return strokes of level 20, and of this level in the lowest share of them."""
    _, top, _, height = cv2.boundingRect(strokes)
    grey = np.full_like(strokes, 20)
    grey[top + round((1 - share) * height) :] = level
    return _canvas(grey, strokes)


def _light_third(strokes: Any) -> Any:
    return _lighter_below(strokes, 0.33, 130)


def _grey_foot(strokes: Any) -> Any:
    return _lighter_below(strokes, 0.08, 60)


@pytest.mark.parametrize("colour", [_grain, _black_to_light, _light_third, _grey_foot, _spotted])
def test_ink_of_several_levels_is_not_taken_for_paper(
    colour: Callable[[Any], Any], test_digits: Any, read_all: Read
) -> None:
    images, labels = test_digits
    files = [png(colour(_strokes(digit, seed))) for seed, digit in enumerate(images[:40])]
    right = sum(found == label for found, label in zip(read_all(files), labels[:40].tolist(), strict=True))
    assert right >= 38
