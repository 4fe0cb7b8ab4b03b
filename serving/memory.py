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

# Blocks of this size are the system's as soon as they are free. glibc would raise the bound to 32 MB itself, and keep
# 300 MB after a hundred messages of that size; to trim it took up to 200 ms. M_MMAP_THRESHOLD is of its malloc.h.
M_MMAP_THRESHOLD, LARGE_BYTES = -3, 1 << 20

# A few bodies in reference cycles are few objects, but many bytes: forty messages of 33 MB were 1.6 GB of garbage.
GROWTH_BYTES = 64 << 20


def freeze() -> None:
    """Take what is there for permanent, look at what comes seldom, and keep no large block that is free."""
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
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
