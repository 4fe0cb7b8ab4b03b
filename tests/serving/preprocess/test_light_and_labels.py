"""What looks like ink by its brightness alone: the light of a lamp, a round label, a canvas, a line beside a digit."""

from typing import Any

import cv2
import numpy as np
import pytest

from serving.preprocess import prepare
from tests.pictures import PAPER, PEN, png

# Corners of digits, in a box of 100x160 pixels.
DIGITS = {
    1: [(50, 0), (50, 160)],
    2: [(5, 30), (50, 0), (95, 35), (0, 160), (100, 160)],
    3: [(0, 10), (60, 0), (90, 35), (40, 75), (95, 110), (60, 160), (0, 150)],
    5: [(95, 0), (10, 0), (5, 70), (70, 65), (95, 110), (60, 160), (0, 150)],
    7: [(0, 0), (100, 0), (40, 160)],
    9: [(95, 40), (50, 0), (5, 40), (50, 80), (95, 40), (90, 160)],
}


def _page(digit: int, corner: tuple[int, int] = (150, 120), pen: int = 12) -> Any:
    """Return paper with a digit drawn in a box with this corner: uint8 (400, 400)."""
    page = np.full((400, 400), PAPER, np.uint8)
    cv2.polylines(page, [np.array(DIGITS[digit]) + corner], False, PEN, pen, cv2.LINE_AA)
    return page


def _same(page: Any, plain: Any) -> bool:
    """Return whether the same is read from both, without a reason against it."""
    one, other = prepare(png(page)), prepare(png(plain))
    return one.reasons == () and np.abs(one.image.astype(int) - other.image.astype(int)).mean() < 15


@pytest.mark.parametrize("digit", DIGITS)
@pytest.mark.parametrize(
    ("centre", "radius", "rest", "more"),
    [((250, 150), 150, 0.35, 0.65), ((150, 250), 180, 0.4, 0.6), ((60, 60), 90, 0.7, 0.7), ((330, 330), 60, 0.7, 0.5)],
)
@pytest.mark.parametrize("dark", [True, False])
def test_the_light_of_a_flash_or_a_lamp_is_no_ink(
    digit: int, centre: tuple[int, int], radius: float, rest: float, more: float, dark: bool
) -> None:
    x, y = np.meshgrid(np.arange(400.0) - centre[0], np.arange(400.0) - centre[1])
    light = rest + more * np.exp(-(x**2 + y**2) / (2 * radius**2))
    lit = np.clip(_page(digit) * light + np.random.default_rng(digit).normal(0, 2, light.shape), 0, 255)
    page = lit.astype(np.uint8)
    assert _same(page if dark else 255 - page, _page(digit))


@pytest.mark.parametrize("digit", DIGITS)
@pytest.mark.parametrize("table", [PEN, 90, 180])
@pytest.mark.parametrize("radius", [125, 150])
@pytest.mark.parametrize("dark", [True, False])
def test_a_round_label_is_paper_and_no_0(digit: int, table: int, radius: int, dark: bool) -> None:
    label = cv2.circle(np.zeros((600, 600), np.uint8), (300, 300), radius, 255, -1)
    page = np.full((600, 600), table, np.uint8)
    page[label > 0] = np.pad(_page(digit), 100, constant_values=PAPER)[label > 0]
    assert _same(page if dark else 255 - page, _page(digit))


@pytest.mark.parametrize("digit", [2, 3, 5, 7, 9])
@pytest.mark.parametrize("around", [(120, 160, 130, 290), (200, 100, 150, 250)])
@pytest.mark.parametrize("dark", [True, False])
def test_a_canvas_on_a_page_of_the_colour_of_its_ink_is_paper(
    digit: int, around: tuple[int, int, int, int], dark: bool
) -> None:
    # Near to the canvas's edge.
    page = cv2.copyMakeBorder(_page(digit, (35, 200)), *around, cv2.BORDER_CONSTANT, value=PEN)
    assert _same(page if dark else 255 - page, _page(digit))


@pytest.mark.parametrize("digit", [0, 6])
@pytest.mark.parametrize("pen", [40, 70])
def test_a_broad_0_or_6_is_no_label(digit: int, pen: int) -> None:
    page = np.full((400, 400), PAPER, np.uint8)
    cv2.ellipse(page, (200, 220), (75, 100), 10, 0, 360, PEN, pen, cv2.LINE_AA)
    if digit == 6:
        cv2.line(page, (140, 190), (220, 40), PEN, pen, cv2.LINE_AA)
    for picture in (page, 255 - page):
        prepared = prepare(png(picture))
        assert prepared.polarity == ("dark_on_light" if picture is page else "light_on_dark")
        assert prepared.image[14, 2:26].max() == 255
        assert prepared.box is not None
        assert prepared.box[3] > 320


@pytest.mark.parametrize("digit", DIGITS)
@pytest.mark.parametrize("level", [195, 205])
@pytest.mark.parametrize("side", [560, 760])
def test_a_sheet_on_a_table_that_is_nearly_as_light_is_paper(digit: int, level: int, side: int) -> None:
    table = np.full((side, side), level, np.uint8)
    table[70:470, 90:490] = _page(digit)
    lit = table * np.linspace(0.88, 1.08, side) + np.random.default_rng(digit).normal(0, 2, table.shape)
    assert _same(np.clip(lit, 0, 255).astype(np.uint8), _page(digit))


@pytest.mark.parametrize("digit", [2, 3, 5, 7, 9])
@pytest.mark.parametrize("x", [100, 290])
@pytest.mark.parametrize(("top", "bottom"), [(10, 380), (80, 390), (30, 330)])
def test_a_digit_beside_a_longer_line_is_not_one_with_it(digit: int, x: int, top: int, bottom: int) -> None:
    page = _page(digit)
    cv2.line(page, (x, top), (x + 4, bottom), PEN, 6, cv2.LINE_AA)
    assert "several_digits" in prepare(png(page)).reasons


@pytest.mark.parametrize(("angle", "edge"), [(5.04, 0.4), (5.04, 0.49), (5.04, 0.55), (5.2, 0.55)])
@pytest.mark.parametrize("soft", [0.06, 0.078, 0.1])
def test_what_is_lit_beside_a_shadow_is_no_sheet(angle: float, edge: float, soft: float) -> None:
    page = np.full((384, 217), 187, np.uint8)
    for stroke in ([(42, 216), (192, 184)], [(24, 240), (28, 262), (60, 285), (50, 330), (22, 358)]):
        cv2.polylines(page, [np.array(stroke)], False, 25, 17, cv2.LINE_AA)
    y, x = np.mgrid[-1:1:384j, -1:1:217j]
    along = x * np.cos(angle) + y * np.sin(angle)
    light = (1 + 0.247 * along) * (1 - 0.42 / (1 + np.exp(-(along - edge) / soft)))
    lit = np.clip(page * light + np.random.default_rng(0).normal(0, 2, light.shape), 0, 255)
    assert _same(lit.astype(np.uint8), page)


@pytest.mark.parametrize(("gap", "reasons"), [(40, ()), (100, ("several_digits",))])
def test_the_flag_of_a_5_may_stand_apart_from_it(gap: int, reasons: tuple[str, ...]) -> None:
    page = np.full((400, 400), PAPER, np.uint8)
    cv2.polylines(page, [np.array([(170, 100), (190, 220), (150, 270), (130, 250)])], False, PEN, 24, cv2.LINE_AA)
    cv2.line(page, (190 + gap, 150), (240 + gap, 120), PEN, 24, cv2.LINE_AA)
    found = prepare(png(page))
    assert found.reasons == reasons
    assert found.box is not None
    assert (found.box[2] > 240 + gap) == (reasons == ())


@pytest.mark.parametrize("digit", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("table", [60, 150])
@pytest.mark.parametrize("cut", [60, 75])
def test_a_round_label_that_the_edge_of_the_picture_cuts_is_no_0(digit: int, table: int, cut: int) -> None:
    label = cv2.circle(np.zeros((400, 400), np.uint8), (200, 190), 130, 255, -1)
    page = np.where(label > 0, _page(digit), table).astype(np.uint8)[cut:]
    assert prepare(png(page)).reasons == ("not_a_digit",) or _same(page, _page(digit)[cut:])


@pytest.mark.parametrize("side", [40, 70, 100])
@pytest.mark.parametrize("pen", [24, 40, 56])
def test_the_hole_of_a_broad_0_is_no_writing(side: int, pen: int) -> None:
    page = cv2.ellipse(np.full((400, 400), PAPER, np.uint8), (200, 200), (side, 110), 10, 0, 360, PEN, pen, cv2.LINE_AA)
    assert prepare(png(page)).reasons == ()
