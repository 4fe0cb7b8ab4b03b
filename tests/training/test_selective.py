import numpy as np
import pytest

from training.selective import choose_threshold, risk_coverage, select

CONFIDENCE = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
RIGHT = np.array([True, True, False, True, False])


def test_a_selection_counts_the_accepted_and_their_errors() -> None:
    chosen = select(CONFIDENCE, RIGHT, 0.6)
    assert chosen.coverage == pytest.approx(0.8)
    assert chosen.error == pytest.approx(0.25)


def test_nothing_accepted_is_no_error() -> None:
    assert select(CONFIDENCE, RIGHT, 0.95).error == 0.0


def test_the_curve_ends_with_all_answers_and_their_error() -> None:
    coverage, error = risk_coverage(CONFIDENCE[::-1], RIGHT[::-1])
    assert coverage.tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert error.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 4, 2 / 5])


@pytest.mark.parametrize(
    ("max_error", "threshold"), [(0.0, 0.8), (0.25, 0.6), (0.4, 0.5)], ids=["none", "a-quarter", "all"]
)
def test_the_threshold_is_the_lowest_that_keeps_the_bound(max_error: float, threshold: float) -> None:
    assert choose_threshold(CONFIDENCE, RIGHT, max_error=max_error) == threshold


def test_ties_are_accepted_together_or_not_at_all() -> None:
    confidence, right = np.array([0.9, 0.8, 0.8]), np.array([True, True, False])
    assert choose_threshold(confidence, right, max_error=0.0) == 0.9


def test_answers_that_differ_in_the_seventh_digit_are_told_apart() -> None:
    confidence, right = np.array([0.9000009, 0.9000001]), np.array([True, False])
    assert select(confidence, right, choose_threshold(confidence, right, max_error=0.0)).error == 0.0


@pytest.mark.parametrize("confidence", [0.9, 1.0])
def test_no_threshold_keeps_a_bound_that_the_surest_answer_breaks(confidence: float) -> None:
    assert choose_threshold(np.array([confidence]), np.array([False]), max_error=0.0) == np.inf
