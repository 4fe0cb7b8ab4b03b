"""Memory of the process: when garbage is collected, and when what is free goes back to the system.

Must not know: what takes it.
"""

import ctypes
import gc
import resource
import sys
from collections.abc import Callable
from pathlib import Path

# Objects that are made before the youngest are looked at. The default, 2000 or 700, made collections of the oldest
# generation stall requests for 70 to 185 ms under load, measured with BentoML 1.4.40.
GC_THRESHOLD = 50_000

# Blocks of this size are the system's as soon as they are free, and smaller ones once as many bytes of them lie free at
# the end of a thread's memory. The system clears each page that it gives: with 1 MB and glibc's own 128 KB a picture of
# 512x512 took 1.4 times the processor time. Left alone, glibc raises its bounds to 32 and 64 MB; it kept 300 MB after a
# hundred messages of that size, and took up to 200 ms to trim them.
LARGE_BYTES, FREE_BYTES = 4 << 20, 16 << 20
# The most that glibc takes for either.
MOST_LARGE_BYTES, MOST_FREE_BYTES = 32 << 20, (1 << 31) - 1
# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3

# A few bodies in reference cycles are few objects, but many bytes: forty messages of 33 MB were 1.6 GB of garbage.
GROWTH_BYTES = 64 << 20


def keep_free(large_bytes: int = LARGE_BYTES, free_bytes: int = FREE_BYTES) -> None:
    """Decide what glibc keeps of what is freed, for what comes next; elsewhere do nothing.

    Args:
        large_bytes: a block of this size goes back to the system at once; at most `MOST_LARGE_BYTES`.
        free_bytes: what may lie free at the end of a thread's memory; at most `MOST_FREE_BYTES`.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_MMAP_THRESHOLD, large_bytes)
        mallopt(M_TRIM_THRESHOLD, free_bytes)


def freeze() -> None:
    """Take what is there for permanent, and look at what comes seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 100)


def resident_bytes() -> int:
    """Return the resident memory; where the system does not say, the greatest so far.

    Raises:
        OSError: the system does not say it now.
    """
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Watch:
    """Collects garbage when more is in use than there was.

    Args:
        measure: bytes in use.
        release: gives back what it can.
    """

    def __init__(self, measure: Callable[[], int] = resident_bytes, release: Callable[[], object] = gc.collect):
        self._measure, self._release = measure, release
        self._usual = measure()

    def look(self) -> int:
        """Return the bytes in use, after giving back some if need be.

        Raises:
            OSError: the system does not say it now.
        """
        used = self._measure()
        if used > self._usual + GROWTH_BYTES:
            self._release()
            used = self._usual = self._measure()
        self._usual = min(self._usual, used)
        return used
