"""The digit on a sheet of paper that lies on a table."""

from typing import Any

import cv2
import numpy as np
import pytest

from serving.preprocess import prepare
from serving.preprocess.ink import find_ink
from tests.pictures import page_with, png
from tests.serving.preprocess.conftest import Read


def _on_a_table(sheet: Any, level: float, angle: float, seed: int) -> Any:
    """Return a grainy table, uint8 (560, 560), with the sheet on it, turned by this angle."""
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
