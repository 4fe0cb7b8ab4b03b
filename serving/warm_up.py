"""Warm-up: run every batch size once, and find out which batches are too small to be worth a thread.

Must not know: models, transports.
"""

import time
from collections.abc import Callable, Iterator

import numpy as np

from serving.batching import Images, Run

# The way to a worker thread and back takes 20 to 60 us of processor time and 20 us of delay where a core is free, by
# benchmarks/hop.py, and more on a busy machine. With 50 us instead of this, single images of mnist-cnn over 32
# connections took the same processor time, within the noise of four runs in turns.
HOP_S = 150e-6

# The least of a few runs: the others were disturbed.
RUNS = 3


def batch_sizes(max_batch_size: int) -> Iterator[int]:
    """Yield the powers of two up to the largest batch, and that one."""
    size = 1
    while size < max_batch_size:
        yield size
        size *= 2
    yield max_batch_size


def warm_up(run: Run, max_batch_size: int, clock: Callable[[], float] = time.perf_counter) -> int:
    """Run blank batches of every size, and return the largest size that takes no longer than a hop to a thread.

    Args:
        run: images uint8 (N, 28, 28) -> Outputs.
        max_batch_size: the largest batch, >= 1.
        clock: monotonic seconds.

    Returns:
        Images that are best run on the event loop; 0 if even one image takes longer.
    """
    inline = 0
    for size in batch_sizes(max_batch_size):
        images = np.zeros((size, 28, 28), np.uint8)
        run(images)
        if _least_s(run, images, clock) <= HOP_S:
            inline = size
    return inline


def _least_s(run: Run, images: Images, clock: Callable[[], float]) -> float:
    durations = []
    for _ in range(RUNS):
        started = clock()
        run(images)
        durations.append(clock() - started)
    return min(durations)
