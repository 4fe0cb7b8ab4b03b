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

# A few bodies in reference cycles are few objects, but many bytes: forty messages of 33 MB were 1.6 GB of garbage.
GROWTH_BYTES = 64 << 20


def freeze() -> None:
    """Take all that is there now for permanent, and look at what comes seldom."""
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


def give_back() -> None:
    """Collect garbage; give the system what is free, which glibc would keep for the thread that had it."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim:
            trim(0)


class Watch:
    """Gives memory back when more is in use than there was.

    Args:
        measure: bytes in use.
        release: gives back what it can.
    """

    def __init__(self, measure: Callable[[], int] = resident_bytes, release: Callable[[], None] = give_back):
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
