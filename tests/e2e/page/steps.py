"""What the tests of the page do again and again."""

import re
from collections.abc import Callable

from tests.e2e.browser import Sheet, expect

# What the page writes is rounded to three decimals.
ROUNDED = 1.5e-3

# How the page writes a minus, and that there is no digit.
MINUS, NO_DIGIT = "\u2212", "\u2013"


def number(text: str | None) -> float:
    """Return the last number of a text."""
    return float(re.findall(r"-?\d+\.\d+", (text or "").replace(MINUS, "-"))[-1])


def settle_on(sheet: Sheet, look: Callable[[], object], expected: object, seconds: int, what: str = "") -> None:
    """Look until what is found is what is expected, or the time is over."""
    for _ in range(10 * seconds):
        if look() == expected:
            return
        sheet.page.wait_for_timeout(100)
    assert look() == expected, what


def choose_layered(sheet: Sheet) -> None:
    sheet.choose("layered")
    sheet.draw()
    expect(sheet.card("layered").locator(".time")).to_contain_text("Answered in")
