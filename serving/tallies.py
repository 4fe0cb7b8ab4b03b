"""Tallies: what is noted while requests are answered, and written into the metrics later, many values at a time.

prometheus_client writes every value at once, into a mapped file under a lock: 1 to 4 us, a dozen times for a request.
Must not know: which metrics there are.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from prometheus_client import Counter, Gauge, Histogram, Metric, Summary

T = TypeVar("T")

# Under load every tally is written once in so many requests, not all at once: that took 0.2 ms, three times as long as
# a request, and a dozen requests behind it were late.
TURNS = 64


class Tally(Generic[T]):
    """Values of one kind.

    Args:
        write: takes the values that were noted since the last time, in their order, at least one.

    Attributes:
        note: takes one value; any thread may call it.
    """

    __slots__ = ("_values", "_write", "note")

    def __init__(self, write: Callable[[list[T]], object]):
        self._values: list[T] = []
        self.note = self._values.append
        self._write = write

    def flush(self) -> None:
        """Write what has been noted; one thread at a time."""
        count = len(self._values)
        if count:
            # What another thread notes meanwhile stays for the next time.
            values = self._values[:count]
            del self._values[:count]
            self._write(values)


def observe(histogram: Histogram, values: npt.ArrayLike) -> None:
    """Observe many values at once; each falls as with `Histogram.observe` of prometheus_client 0.26."""
    bounds = histogram._upper_bounds
    counts = np.bincount(np.searchsorted(bounds, values), minlength=len(bounds))
    for place in counts.nonzero()[0].tolist():
        histogram._buckets[place].inc(int(counts[place]))
    histogram._sum.inc(float(np.sum(values)))


class Tallies:
    """Every tally of a process; as a collector it is the first of a registry, so that a scrape misses nothing."""

    def __init__(self) -> None:
        self._tallies: list[Tally[Any]] = []
        self._turn = self._rested_at = 0
        self._lock = threading.Lock()

    def collect(self) -> Iterable[Metric]:
        """Write what has been noted, before the metrics themselves are collected; there is no metric here."""
        self.write()
        return ()

    def write(self) -> None:
        """Write what has been noted."""
        with self._lock:
            for tally in self._tallies:
                tally.flush()

    def write_some(self) -> None:
        """Write what one in `TURNS` tallies have noted, each time others; nothing while another thread writes."""
        if self._lock.acquire(blocking=False):
            try:
                self._turn += 1
                for tally in self._tallies[self._turn % TURNS :: TURNS]:
                    tally.flush()
            finally:
                self._lock.release()

    def write_rest(self) -> None:
        """Write what has been noted, unless requests have had every tally written in turn since the last call.

        What was noted before a call is written at the end of the next one.
        """
        turns, self._rested_at = self._turn - self._rested_at, self._turn
        if turns < TURNS:
            self.write()

    def add(self, write: Callable[[list[T]], object]) -> Tally[T]:
        """Return a new tally; see `Tally`."""
        tally = Tally(write)
        self._tallies.append(tally)
        return tally

    def counter(self, counter: Counter | Gauge) -> Tally[float]:
        """Return a tally whose values are added to a counter, or to a gauge, which may also fall."""
        return self.add(lambda values: counter.inc(sum(values)))

    def gauge(self, gauge: Gauge) -> Tally[float]:
        """Return a tally whose newest value a gauge shows."""
        return self.add(lambda values: gauge.set(values[-1]))

    def histogram(self, histogram: Histogram) -> Tally[float]:
        """Return a tally whose values a histogram observes."""
        return self.add(lambda values: observe(histogram, values))

    def summary(self, summary: Summary) -> Tally[float]:
        """Return a tally whose values a summary observes."""

        def write(values: list[float]) -> None:
            summary._count.inc(len(values))
            summary._sum.inc(sum(values))

        return self.add(write)
