"""What the watchers of `benchmarks.tail` take for a disturbance, and which answers it touches."""

import numpy as np

from benchmarks import disturbances


def wakes(late_s=0.0, slow=1.0, at=50):
    """Return a hundred wakes, a millisecond apart, with 40 us of work; one is late, or works longer."""
    due = np.arange(100) * disturbances.PERIOD_S
    woken, took = due.copy(), np.full(100, 40e-6)
    woken[at] += late_s
    took[at] *= slow
    return np.stack([due, woken, woken + took], axis=1)


def test_a_core_that_is_there_and_as_fast_as_always_was_not_disturbed():
    assert disturbances.find(wakes(late_s=50e-6, slow=1.2)).shape == (0, 2)


def test_a_core_that_was_taken_away_was_disturbed_from_when_the_watcher_was_due():
    np.testing.assert_allclose(disturbances.find(wakes(late_s=0.007)), [[0.050, 0.05704]])


def test_a_core_that_was_slow_was_disturbed():
    np.testing.assert_allclose(disturbances.find(wakes(slow=1.7)), [[0.050, 0.050068]])


def test_disturbances_that_follow_each_other_are_one():
    spans = np.array([[5.0, 6.0], [1.0, 2.0], [2.5, 3.0], [1.5, 1.7]])
    assert disturbances.unite(spans, 0.5).tolist() == [[1.0, 3.0], [5.0, 6.0]]
    assert disturbances.unite(spans).tolist() == [[1.0, 2.0], [2.5, 3.0], [5.0, 6.0]]


def test_what_was_delayed_is_caught_up_with_in_the_time_that_is_left_over():
    # In 3 s at a load of 0.75, 2.25 s of work come up, and as much while they are done: 9 s, at 0.25 a second.
    assert disturbances.caught_up(np.array([[10.0, 13.0], [20.0, 21.0]]), 0.75).tolist() == [[10.0, 24.0]]


def test_an_answer_is_touched_by_a_disturbance_that_shares_a_moment_with_it():
    begin, end = np.array([0.0, 0.5, 1.4, 2.1, 5.0]), np.array([0.9, 1.1, 1.6, 2.9, 9.0])
    found = disturbances.touched(begin, end, np.array([[1.0, 2.0], [6.0, 7.0]]))
    assert found.tolist() == [False, True, True, False, True]
    assert not disturbances.touched(begin, end, np.empty((0, 2))).any()
