import numpy as np
import pytest

from training.calibration import (
    Bin,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
)


def overconfident(temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from the softmax of logits, and those logits times a temperature."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, (20_000, 10))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (chances.cumsum(axis=1) < rng.random((len(logits), 1))).sum(axis=1).clip(max=9)
    return logits * temperature, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_spoilt_the_logits_is_found(temperature: float) -> None:
    assert fit_temperature(*overconfident(temperature)) == pytest.approx(temperature, rel=0.03)


def test_the_fitted_temperature_has_the_least_loss() -> None:
    logits, labels = overconfident(2.0)
    best = fit_temperature(logits, labels)
    losses = [negative_log_likelihood(logits / (best * factor), labels) for factor in (0.9, 1.0, 1.1)]
    assert min(losses) == losses[1]


def test_the_loss_of_a_uniform_answer_is_the_logarithm_of_ten() -> None:
    assert negative_log_likelihood(np.zeros((3, 10)), np.array([0, 5, 9])) == pytest.approx(np.log(10))


def test_calibration_error_is_near_zero_for_honest_and_large_for_boastful_probabilities() -> None:
    def error(scale: float) -> float:
        logits, labels = overconfident(scale)
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        return expected_calibration_error(reliability(scores / scores.sum(axis=1, keepdims=True), labels))

    assert error(1.0) < 0.015
    assert error(4.0) > 0.15


def test_bins_are_of_equal_size_and_ascend_in_confidence() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(10), 1000)
    bins = reliability(probabilities, np.zeros(1000, int), bins=15)
    assert {part.count for part in bins} == {66, 67}
    assert [part.confidence for part in bins] == sorted(part.confidence for part in bins)
    assert sum(part.count * part.accuracy for part in bins) == pytest.approx((probabilities.argmax(1) == 0).sum())


def test_the_error_weighs_bins_by_their_size() -> None:
    bins = (Bin(300, 0.9, 0.8), Bin(100, 0.5, 0.9))
    assert expected_calibration_error(bins) == pytest.approx((300 * 0.1 + 100 * 0.4) / 400)
