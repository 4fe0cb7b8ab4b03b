from typing import Any

import pytest

from serving.warm_up import HOP_S, Pace, batch_sizes, warm_up
from tests.serving.fakes import FakeClock, FakeRun


def test_sizes_are_powers_of_two_and_the_largest():
    assert list(batch_sizes(1)) == [1]
    assert list(batch_sizes(8)) == [1, 2, 4, 8]
    assert list(batch_sizes(12)) == [1, 2, 4, 8, 12]


def test_batches_that_take_longer_than_a_hop_go_to_the_thread():
    clock, run = FakeClock(), FakeRun()

    def timed(images: Any) -> Any:
        clock.now += len(images) * HOP_S / 5
        return run(images)

    assert warm_up(timed, 16, clock).inline_images == 4
    assert {len(batch) for batch in run.batches} == {1, 2, 4, 8, 16}


def test_a_slow_model_never_runs_on_the_loop():
    clock, run = FakeClock(), FakeRun()

    def timed(images: Any) -> Any:
        clock.now += 0.001
        return run(images)

    assert warm_up(timed, 4, clock).inline_images == 0


@pytest.mark.parametrize(("each_us", "singly"), [(20, True), (60, False)])
def test_what_batches_save_decides_whether_requests_wait_for_one(each_us: int, singly: bool):
    """A model that takes as long for many images as for one."""
    clock, run = FakeClock(), FakeRun()

    def timed(images: Any) -> Any:
        clock.now += each_us / 1e6
        return run(images)

    assert warm_up(timed, 16, clock) == (16, singly)


def test_the_log_says_how_a_model_runs():
    assert Pace(8, True).describe() == "more than 8 images at once run in a thread, requests do not wait for each other"
    assert Pace(0, False).describe() == "every batch runs in a thread, requests wait for each other"
