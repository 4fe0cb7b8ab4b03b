"""What the tests of the page do again and again."""

import re
from collections.abc import Callable
from functools import partial

import pytest

from tests.e2e.browser import LIMIT_MS, Sheet, expect

# What the page writes is rounded to three decimals.
ROUNDED = 1.5e-3

# How the page writes a minus, and that there is no digit.
MINUS, NO_DIGIT = "\u2212", "\u2013"


def number(text: str | None) -> float:
    """Return the last number of a text."""
    return float(re.findall(r"-?\d+\.\d+", (text or "").replace(MINUS, "-"))[-1])


def settle_on(sheet: Sheet, look: Callable[[], object], expected: object, what: str = "") -> None:
    """Look until what is found is what is expected, or the time is over."""
    for _ in range(LIMIT_MS // 100):
        if look() == expected:
            return
        sheet.page.wait_for_timeout(100)
    assert look() == expected, what


def edges(sheet: Sheet) -> tuple[float, float]:
    """Return where the box around the ink begins from the left and ends from the top, in sides of the sheet."""
    pad, box = (sheet.page.locator(place).bounding_box() for place in ("#pad", "#ink-box"))
    if pad is None or box is None:
        return 0, 0
    return (box["x"] - pad["x"]) / pad["width"], (box["y"] + box["height"] - pad["y"]) / pad["height"]


def settle_on_the_whole(sheet: Sheet) -> None:
    """Wait for the answer to the whole 7: those that came while it was drawn are to a part of it."""
    settle_on(sheet, partial(edges, sheet), pytest.approx((0.28 - 0.033, 0.85 + 0.033), abs=0.02))


def choose_layered(sheet: Sheet) -> None:
    sheet.choose("layered")
    sheet.draw()
    settle_on_the_whole(sheet)
    expect(sheet.card("layered").locator(".time")).to_contain_text("Answered in")
