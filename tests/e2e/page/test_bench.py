"""The bench of convolutions."""

import re

import numpy as np
import pytest

from tests.e2e.browser import Sheet, expect
from tests.e2e.page.steps import MINUS, ROUNDED, number, settle_on_the_whole

pytestmark = pytest.mark.browser


def test_the_bench_filters_the_drawing_as_numpy_does(sheet: Sheet):
    sheet.draw()
    settle_on_the_whole(sheet)
    view = sheet.view("bench")
    formula = view.locator(".bench-formula")
    expect(formula).to_have_text(f"(28 + 2·0 {MINUS} 3) / 1 + 1 = 26")
    view.get_by_label("Padding").fill("2")
    view.get_by_label("Stride").fill("2")
    expect(formula).to_contain_text(f"\u230a(28 + 2·2 {MINUS} 3) / 2\u230b + 1 = 15 (rounded down)")
    view.get_by_label("Row 1, column 1").fill("2.5")
    expect(view.locator("select").first).to_have_value("typed")
    maps = view.locator('canvas.maps[role="application"]')
    maps.focus()
    for key in ["ArrowRight"] * 6 + ["ArrowDown"] * 5:
        maps.press(key)
    padded = np.pad(sheet.seen() / 255, 2)
    kernel = np.array([[2.5, 0, 1], [-1, 0, 1], [-1, 0, 1]])
    right = (padded[10:13, 12:15] * kernel).sum()
    found = view.locator(".bench-sum caption").last.text_content()
    assert number(found) == pytest.approx(right, abs=ROUNDED)
    sheet.screenshot("bench-light")


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("Stride", "0", "Stride 0 is too small: the kernel would never move on."),
        ("Stride", "1.5", "Stride must be a whole number."),
        ("Padding", "-1", "Padding -1 is too small: pixels can be added around the picture, not taken away."),
        ("Padding", "1000", "Padding 1000 is too large: beyond the picture's own 28 pixels it only adds paper."),
        ("Row 2, column 2", "", "Every field of the kernel needs a number."),
    ],
)
def test_an_impossible_convolution_says_why(sheet: Sheet, field: str, value: str, why: str):
    sheet.draw()
    sheet.expect_digit("7")
    view = sheet.view("bench")
    view.get_by_label(field).fill(value)
    expect(view.locator(".error")).to_have_text(why)
    expect(view.locator(".pair")).to_be_hidden()


def test_a_kernel_that_does_not_fit_says_why(sheet: Sheet):
    sheet.draw()
    sheet.expect_digit("7")
    view = sheet.view("bench")
    view.get_by_label("Side").select_option("5")
    view.get_by_label("Picture", exact=False).select_option("4")
    expect(view.locator(".error")).to_have_text("A kernel of 5 \u00d7 5 does not fit into 4 + 2·0 = 4 pixels.")
    view.get_by_label("Padding").fill("1")
    expect(view.locator(".bench-formula")).to_have_text(f"(4 + 2·1 {MINUS} 5) / 1 + 1 = 2")


@pytest.mark.parametrize(
    ("stride", "padding", "remark"),
    [
        ("2", "0", "13 (rounded down; 1 of the pixels at the right and bottom are never reached)"),
        ("2", "1", "14 (rounded down)"),
        ("5", "0", "6 (2 pixels between two places of the kernel are left out)"),
        ("1", "0", "26"),
    ],
)
def test_the_bench_says_which_pixels_it_leaves_out(sheet: Sheet, stride: str, padding: str, remark: str):
    view = sheet.view("bench")
    view.get_by_label("Stride").fill(stride)
    view.get_by_label("Padding").fill(padding)
    formula = view.locator(".bench-formula")
    expect(formula).to_have_text(re.compile(f" {re.escape(remark)}$"))


def test_the_frames_of_the_bench_follow_its_settings(sheet: Sheet):
    view = sheet.view("bench")
    maps = view.locator('canvas.maps[role="application"]')
    maps.focus()
    for key in ["ArrowRight"] * 20:
        maps.press(key)
    view.get_by_label("Stride").fill("5")  # leaves 6 places, the last of which begins at 25
    frame = view.locator(".mark:not(.picked)")
    expect(frame).to_have_count(1)
    left, width = (frame.evaluate(f"mark => parseFloat(mark.style.{side})") for side in ("left", "width"))
    assert (left, width) == pytest.approx((100 * 25 / 28, 100 * 3 / 28), abs=1e-3)
    expect(view.locator(".bench-sum caption").first).to_be_visible()


def test_without_an_answer_the_views_say_what_is_missing(sheet: Sheet):
    code, bench = sheet.view("code").locator("[role=status]"), sheet.view("bench").locator(".error")
    expect(code).to_have_text("Draw something first.")
    sheet.upload("letter.txt", b"Dear network, this is no picture.", "text/plain")
    expect(code).to_have_text("No network could read what is there.")
    expect(bench).to_have_text("No network could read what is there. This is blank paper.")
    sheet.choose()
    expect(code).to_have_text("Choose a network first.")


def test_pictures_of_the_bench_are_as_large_as_before_they_were_small(sheet: Sheet):
    view = sheet.view("bench")
    frames = view.locator(".maps-frame")
    before = [frame.bounding_box() for frame in frames.all()]
    for size in ("4", "28"):
        view.get_by_label("Picture", exact=False).select_option(size)
    assert [frame.bounding_box() for frame in frames.all()] == before
