"""Heartbeats: how a worker shows that it is not stuck, and how its supervisor sees that one is.

Must not know: what a worker does. A heartbeat is the time of an empty file, by the monotonic clock, which the processes
of a machine share: setting it needs no room on the disk and no descriptor, and the wall clock may jump.
"""

import logging
import os
from collections.abc import Collection
from pathlib import Path

logger = logging.getLogger(__name__)

PREFIX = "heartbeat_"


class Heartbeat:
    """The heartbeat of this process.

    Args:
        folder: shared with the supervisor; None for a lone process without one.
    """

    def __init__(self, folder: Path | None):
        self._path = folder / f"{PREFIX}{os.getpid()}" if folder else None

    def start(self, at_s: float) -> None:
        """Begin: from now on the supervisor expects a sign of life. `at_s`: monotonic seconds."""
        if self._path is None:
            return
        try:
            self._path.touch()
        except OSError as error:
            logger.warning("no heartbeat, so nobody will notice if this process gets stuck: %s", error)
        self.beat(at_s)

    def beat(self, at_s: float) -> None:
        """Show that this process was not stuck at `at_s`, monotonic seconds."""
        if self._path is None:
            return
        at_ns = round(at_s * 1e9)
        try:
            os.utime(self._path, ns=(at_ns, at_ns))
        except OSError:  # the folder is gone: an instance without it goes on unwatched
            self._path = None


def silence_s(folder: Path, pid: int, now_s: float) -> float:
    """Return how long a process has given no sign of life; 0 for one that has not begun to."""
    try:
        return now_s - (folder / f"{PREFIX}{pid}").stat().st_mtime_ns / 1e9
    except OSError:
        return 0.0


def forget_others(folder: Path, pids: Collection[int]) -> None:
    """Remove what other processes than `pids` have left: a new one may get the number of a dead one."""
    known = {f"{PREFIX}{pid}" for pid in pids}
    for path in folder.glob(f"{PREFIX}*"):
        if path.name not in known:
            path.unlink(missing_ok=True)
