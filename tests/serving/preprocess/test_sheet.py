"""The digit on a sheet of paper that lies on a table."""

from typing import Any

import cv2
import numpy as np
import pytest

from serving.preprocess import prepare
from serving.preprocess.ink import find_ink
from tests.pictures import page_with, png
from tests.serving.preprocess.conftest import Read


def _on_a_table(sheet: Any, level: Any, angle: float, seed: int) -> Any:
    """Return a grainy table of this level or levels, uint8 (560, 560), with the sheet on it, turned by this angle."""
    turn = cv2.getRotationMatrix2D((sheet.shape[1] / 2, sheet.shape[0] / 2), angle, 1.0)
    turn += [[0, 0, 100], [0, 0, 90]]
    laid = cv2.warpAffine(sheet, turn, (560, 560))
    share = cv2.warpAffine(np.ones(sheet.shape), turn, (560, 560))
    table = level + np.random.default_rng(seed).normal(0, 6, (560, 560))
    return np.clip(table * (1 - share) + laid * share, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("level", [50, 140])
def test_a_sheet_on_a_table_is_paper(level: float, test_digits: Any, read_all: Read) -> None:
    images, labels = test_digits
    files = []
    for seed, digit in enumerate(images[:60]):
        sheet = page_with(digit, 180, (360, 380), (90, 80), seed)
        files.append(png(_on_a_table(sheet, level, (seed - 30) / 2, seed)))
    assert {prepare(file).polarity for file in files} == {"dark_on_light"}
    right = sum(found == label for found, label in zip(read_all(files), labels[:60].tolist(), strict=True))
    assert right >= 57


def test_a_light_sheet_on_a_lighter_table_keeps_its_polarity(test_digits: Any, read_all: Read) -> None:
    images, labels = test_digits
    files = [
        png(255 - _on_a_table(page_with(digit, 180, (360, 380), (90, 80), seed), 60, 5, seed))
        for seed, digit in enumerate(images[:30])
    ]
    right = sum(found == label for found, label in zip(read_all(files), labels[:30].tolist(), strict=True))
    assert right >= 28


def test_a_broad_0_with_straight_sides_is_no_sheet() -> None:
    page = np.full((300, 300), 255, np.uint8)
    page[60:240, 90:210] = 0
    page[100:200, 140:160] = 255
    assert find_ink(page).dark
    assert not find_ink(255 - page).dark


def _cut(picture: Any, sides: str) -> Any:
    """Return the part of `_on_a_table` with the sheet in which the table is seen on these sides only, uint8."""
    left, top = 0 if "L" in sides else 125, 0 if "T" in sides else 115
    right, bottom = 560 if "R" in sides else 455, 560 if "B" in sides else 425
    return picture[top:bottom, left:right]


def _light_from_one_side(picture: Any) -> Any:
    return np.clip(picture * np.linspace(0.88, 1.1, picture.shape[1]), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("level", [50, 140])
@pytest.mark.parametrize("sides", ["L", "B", "LT", "TR", "LR", "LTR"])
def test_a_sheet_that_the_picture_cuts_is_paper(sides: str, level: float, test_digits: Any, read_all: Read) -> None:
    images, labels = test_digits
    files = []
    for seed, digit in enumerate(images[:30]):
        sheet = page_with(digit, 150, (360, 380), (105, 95), seed)
        picture = _cut(_on_a_table(sheet, level, (seed - 15) / 3, seed), sides)
        files.append(png(_light_from_one_side(picture)))
    prepared = [prepare(file) for file in files]
    assert {found.polarity for found in prepared} == {"dark_on_light"}
    assert sum(not found.reasons for found in prepared) >= 28
    right = sum(found == label for found, label in zip(read_all(files), labels[:30].tolist(), strict=True))
    assert right >= 28


@pytest.mark.parametrize("sides", ["L", "TR", "LTR"])
def test_a_sheet_on_a_table_with_a_strong_grain_is_paper(sides: str, test_digits: Any, read_all: Read) -> None:
    images, labels = test_digits
    files = []
    for seed, digit in enumerate(images[:30]):
        grain = cv2.GaussianBlur(np.random.default_rng(seed).normal(0, 1, (560, 1)), (0, 0), 4)
        sheet = page_with(digit, 150, (360, 380), (105, 95), seed)
        picture = _on_a_table(sheet, 110 + 25 * grain / grain.std(), (seed - 15) / 3, seed)
        files.append(png(_cut(picture, sides)))
    assert sum(not prepare(file).reasons for file in files) >= 28
    right = sum(found == label for found, label in zip(read_all(files), labels[:30].tolist(), strict=True))
    assert right >= 28


@pytest.mark.parametrize("sides", ["L", "LT", "TR", "LTR"])
def test_nothing_is_read_from_an_empty_sheet_on_a_table(sides: str) -> None:
    empty = 0
    for seed in range(20):
        sheet = np.random.default_rng(seed).normal(210, 2, (360, 380)).clip(0, 255).astype(np.uint8)
        picture = _cut(_on_a_table(sheet, 60, (seed - 10) / 2, seed), sides)
        empty += prepare(png(_light_from_one_side(picture))).reasons == ("blank",)
    assert empty >= 19


def test_a_digit_that_lies_half_in_the_shadow_is_read_whole(test_digits: Any, read_all: Read) -> None:
    images, labels = test_digits
    files = []
    for seed, digit in enumerate(images[:30]):
        page = page_with(digit, 220, (400, 400), (110, 90), seed).astype(float)
        page[:, :200] *= 0.6
        files.append(png(page.astype(np.uint8)))
    right = sum(found == label for found, label in zip(read_all(files), labels[:30].tolist(), strict=True))
    assert right >= 28


def test_of_two_digits_one_in_the_shadow_neither_is_read_alone(test_digits: Any) -> None:
    for seed, (one, other) in enumerate(zip(test_digits[0][:20], test_digits[0][20:40], strict=True)):
        halves = [page_with(digit, 150, (400, 300), (80, 120), seed).astype(float) for digit in (one, other)]
        page = np.hstack([halves[0] * 0.5, halves[1]])
        assert prepare(png(page.astype(np.uint8))).reasons


def test_a_7_in_a_tight_cut_is_no_table() -> None:
    page = np.full((200, 140), 225, np.uint8)
    cv2.polylines(page, [np.array([[0, 12], [128, 12], [60, 200]])], False, 40, 26)
    assert find_ink(page).strokes.box == (0, 0, 140, 200)
