import math

import numpy as np
import pytest

from serving.drift import MIN_IMAGES, Drift, population_stability_index
from serving.manifest import Reference

REFERENCE = Reference(digits=[0.1] * 10, ink_edges=[0.0, 100.0, 255.0], ink=[0.5, 0.5])


def images(*means: int) -> np.ndarray:
    return np.repeat(np.array(means, np.uint8), 784).reshape(-1, 28, 28)


def test_equal_shares_have_no_index():
    assert population_stability_index([0.25, 0.75], np.array([10, 30])) == pytest.approx(0.0)


def test_the_index_is_the_sum_of_the_textbook():
    found = population_stability_index([0.5, 0.5], np.array([8, 2]))
    assert found == pytest.approx(0.3 * math.log(0.8 / 0.5) + (-0.3) * math.log(0.2 / 0.5))


def test_an_empty_bin_makes_the_index_large_but_finite():
    assert 1 < population_stability_index([0.5, 0.5], np.array([10, 0])) < 10
    # A bin of nothing counts as one image in ten thousand.
    assert population_stability_index([0, 1], np.array([5, 0])) == pytest.approx(2 * 0.9999 * math.log(10_000))


def test_few_images_say_nothing():
    drift = Drift(REFERENCE, 1000)
    drift.add(images(50), np.array([3]))
    assert drift.indices() is None


def test_the_training_distribution_shows_no_drift_and_one_digit_shows_much():
    alike, other = Drift(REFERENCE, 1000), Drift(REFERENCE, 1000)
    for place in range(MIN_IMAGES):
        alike.add(images(50 if place % 2 else 200), np.array([place % 10]))
        other.add(images(200), np.array([1]))
    assert alike.indices() == pytest.approx((0.0, 0.0))
    digits, ink = other.indices()
    assert digits > 0.25
    assert ink > 0.25


def test_an_edge_belongs_to_the_bin_above_it():
    drift = Drift(REFERENCE.model_copy(update={"ink": [0.2, 0.8]}), 100)
    drift.add(images(*[100] * 100), np.arange(100) % 10)
    assert drift.indices()[1] == population_stability_index([0.2, 0.8], np.array([0, 100]))


def test_the_outer_bins_are_open():
    drift = Drift(REFERENCE, 100)
    drift.add(images(*[0] * 50, *[255] * 50), np.arange(100) % 10)
    assert drift.indices() == pytest.approx((0.0, 0.0))


def test_of_more_images_than_the_window_the_latest_count():
    drift = Drift(REFERENCE, 100)
    drift.add(images(*[0] * 60, *[50, 200] * 50), np.concatenate([np.zeros(60, int), np.arange(100) % 10]))
    assert drift.indices() == pytest.approx((0.0, 0.0))


def test_only_the_latest_images_count():
    drift = Drift(REFERENCE, 100)
    drift.add(images(*[0] * 300), np.zeros(300, int))
    drift.add(images(*[50, 200] * 50), np.arange(100) % 10)
    assert drift.indices() == pytest.approx((0.0, 0.0))
