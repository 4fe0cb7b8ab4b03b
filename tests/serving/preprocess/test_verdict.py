"""What of the form of the ink speaks against a digit, at each bound."""

from typing import Any

import numpy as np
import pytest

from serving.preprocess.digit import Drawing
from serving.preprocess.strokes import Strokes
from serving.preprocess.verdict import reasons_against

BOX = (0, 0, 1, 1)
BAR = (160, 20)
NOT_A_DIGIT = ("not_a_digit",)


def verdict(fine: Any, stroke_pixels: float, parts: int = 1, others: int = 0) -> tuple[str, ...]:
    strokes = Strokes(fine, BOX, (BOX,) * parts, (BOX,) * others, 0)
    return reasons_against(strokes, Drawing(np.zeros((28, 28), np.uint8), fine, stroke_pixels))


def full(shape: tuple[int, int]) -> Any:
    return np.full(shape, 255, np.uint8)


@pytest.mark.parametrize(
    ("shape", "stroke_pixels", "accepted"),
    [
        (BAR, 2.5, True),
        ((62, 160), 5.0, True),
        ((61, 160), 5.0, False),  # too wide
        ((160, 70), 8.4, True),
        ((160, 70), 8.6, False),  # too broad a stroke
        ((160, 40), 5.9, True),
        ((160, 40), 6.1, False),  # a body: broad and short
        ((160, 160), 4.6, True),
        ((160, 160), 4.5, False),  # too long a way of the pen
    ],
)
def test_a_form_is_that_of_a_digit_within_each_bound(shape: tuple[int, int], stroke_pixels: float, accepted: bool):
    assert verdict(full(shape), stroke_pixels) == (() if accepted else NOT_A_DIGIT)


@pytest.mark.parametrize(("holes", "side", "accepted"), [(4, 7, True), (5, 7, False), (9, 6, True)])
def test_a_digit_has_at_most_four_holes_and_any_number_of_gaps(holes: int, side: int, accepted: bool):
    fine = full((160, 160))
    for number in range(holes):
        fine[16 * number + 2 : 16 * number + 2 + side, 80 : 80 + side] = 0
    assert verdict(fine, 5.0) == (() if accepted else NOT_A_DIGIT)


def test_a_broken_digit_has_at_most_five_parts_and_what_stands_beside_it_is_told():
    assert [verdict(full(BAR), 2.5, parts) for parts in (5, 6)] == [(), NOT_A_DIGIT]
    assert verdict(full(BAR), 2.5, others=1) == ("several_digits",)
    assert verdict(full(BAR), 2.5, parts=6, others=1) == ("several_digits", "not_a_digit")


def test_no_strokes_are_no_digit():
    assert verdict(np.zeros((160, 160), np.uint8), 0.0) == NOT_A_DIGIT
