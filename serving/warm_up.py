"""Warm-up: run every batch size once, and find out which are not worth a thread, and whether batches are worth a wait.

Must not know: models, transports.
"""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from serving.batching import Run
from serving.waiting import Images

# The way to a worker thread and back takes 20 to 60 us of processor time and 20 us of delay where a core is free, by
# benchmarks/hop.py, and more on a busy machine. With 50 us instead of this, single images of mnist-cnn over 32
# connections took the same processor time, within the noise of four runs in turns.
HOP_S = 150e-6

# What a request costs more that waits for a batch than one that is answered as soon as it is read.
WAIT_S = 40e-6

# The least of a few runs: the others were disturbed.
RUNS = 3


def batch_sizes(max_batch_size: int) -> Iterator[int]:
    """Yield the powers of two up to the largest batch, and that one."""
    size = 1
    while size < max_batch_size:
        yield size
        size *= 2
    yield max_batch_size


class Pace(NamedTuple):
    """How a model is best run.

    Attributes:
        inline_images: the largest batch that takes no longer than a hop to a thread; 0 if even one image does.
        singly: whether batches save less than `WAIT_S` for each image.
    """

    inline_images: int
    singly: bool

    def describe(self) -> str:
        """Return it in words, for the log."""
        threads = f"more than {self.inline_images} images at once run" if self.inline_images else "every batch runs"
        return f"{threads} in a thread, requests {'do not ' if self.singly else ''}wait for each other"


def warm_up(run: Run, max_batch_size: int, clock: Callable[[], float] = time.perf_counter) -> Pace:
    """Run blank batches of every size, and find out how the model is best run.

    Args:
        run: images uint8 (N, 28, 28) -> Outputs.
        max_batch_size: the largest batch, >= 1.
        clock: monotonic seconds.
    """
    durations_s: dict[int, float] = {}
    for size in batch_sizes(max_batch_size):
        images = np.zeros((size, 28, 28), np.uint8)
        run(images)
        durations_s[size] = _least_s(run, images, clock)
    inline_images = max((size for size, duration_s in durations_s.items() if duration_s <= HOP_S), default=0)
    saved_s = durations_s[1] - min(duration_s / size for size, duration_s in durations_s.items())
    return Pace(inline_images, saved_s <= WAIT_S)


def _least_s(run: Run, images: Images, clock: Callable[[], float]) -> float:
    durations = []
    for _ in range(RUNS):
        started = clock()
        run(images)
        durations.append(clock() - started)
    return min(durations)
