"""When a core was taken away or slowed, as a watcher on it notices: what no program that runs there can help.

The host of a virtual machine takes its cores away for milliseconds, and another guest on the other half of a core slows
it down. A watcher has a higher real-time priority than what is measured: it wakes up every millisecond and does the
same small work, so that nothing but the machine can delay the one or lengthen the other.

Run: as root, python benchmarks/disturbances.py CORE FILE; ends at SIGTERM. `benchmarks.tail` does so.
"""

import os
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

# Of those that are measured, and of the watchers.
PRIORITY, WATCHERS_PRIORITY = 10, 20

PERIOD_S = 0.001

# Steps of the small work: 40 us, so that a watcher takes 4 % of its core.
STEPS = 600

# What wakes up later, or works longer than the median work times this, was disturbed.
LATE_S, SLOW = 0.0001, 1.4

# Wakes of a watcher: when each was due, when it came and when its work was done, in seconds of `time.perf_counter`.
Wakes = npt.NDArray[np.float64]

# Disjoint and in order: begin and end of each in seconds.
Spans = npt.NDArray[np.float64]


def find(wakes: Wakes) -> Spans:
    """Return when a core was taken away or slowed: float64 (M, 2) for wakes float64 (N, 3)."""
    due, woken, done = wakes.T
    took = done - woken
    disturbed = (woken - due > LATE_S) | (took > SLOW * np.median(took))
    return unite(np.stack([due, done], axis=1)[disturbed], 2 * PERIOD_S)


def unite(spans: Spans, apart_s: float = 0.0) -> Spans:
    """Return spans in order, those as one between which there are at most `apart_s`."""
    united: list[list[float]] = []
    for begin, end in sorted(spans.tolist()):
        if united and begin <= united[-1][1] + apart_s:
            united[-1][1] = max(united[-1][1], end)
        else:
            united.append([begin, end])
    return np.array(united, np.float64).reshape(-1, 2)


def caught_up(spans: Spans, load: float) -> Spans:
    """Return spans until what was delayed in them is done: at a load of 0.7, 7 ms of delay take 16 ms more.

    Args:
        spans: float64 (M, 2).
        load: the share of the time, in [0, 1), that the work takes where nothing disturbs it.
    """
    begin, end = spans.T
    return unite(np.stack([begin, end + (end - begin) * load / (1 - load)], axis=1))


def touched(begin: npt.NDArray[np.float64], end: npt.NDArray[np.float64], spans: Spans) -> npt.NDArray[np.bool_]:
    """Return which of N times, from `begin` to `end`, share a moment with one of the disjoint spans."""
    if not len(spans):
        return np.zeros(len(begin), bool)
    before = np.searchsorted(spans[:, 0], end, side="right") - 1
    return (before >= 0) & (spans[before, 1] >= begin)


class Watchers:
    """A watcher on each of the cores, from entry to exit.

    Args:
        cores: to watch.
        folder: for what they note.
    """

    def __init__(self, cores: Sequence[int], folder: Path):
        self._files = {core: folder / f"wakes-{core}" for core in cores}
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Watchers":
        for core, path in self._files.items():
            # Else a watcher that could not begin would leave what an earlier one has noted.
            path.unlink(missing_ok=True)
            self._running.append(subprocess.Popen([sys.executable, __file__, str(core), str(path)]))
        time.sleep(0.5)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for watcher in self._running:
            watcher.terminate()
            watcher.wait()

    def found(self) -> list[Spans]:
        """Return what each has found, once all have ended."""
        return [find(np.fromfile(path).reshape(-1, 3)) for path in self._files.values()]


def _watch(core: int, path: Path) -> None:
    os.sched_setaffinity(0, {core})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(WATCHERS_PRIORITY))
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    wakes = array("d")
    while not ended:
        due = time.perf_counter() + PERIOD_S
        time.sleep(PERIOD_S)
        woken, total = time.perf_counter(), 0
        for step in range(STEPS):
            total += step * step % 7
        wakes.extend((due, woken, time.perf_counter()))
    path.write_bytes(wakes.tobytes())


if __name__ == "__main__":
    _watch(int(sys.argv[1]), Path(sys.argv[2]))
