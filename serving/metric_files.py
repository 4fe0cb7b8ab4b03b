"""The files in which the workers of an instance keep their metrics: room for them, the dead, the broken.

Must not know: which metrics there are. The format is prometheus_client 0.26: the number of bytes in use as an int32,
four bytes of nothing, then for each value the length of its name, the name, blanks up to the next multiple of eight
bytes, and two doubles.
"""

import logging
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

logger = logging.getLogger(__name__)

# Room for the file of each kind. After a test with every route, status and model version the largest, the histograms',
# had 177 kB in use, any other less than 40.
ROOM_BYTES = {
    "counter": 1 << 17,
    "gauge_livemax": 1 << 17,
    "gauge_livesum": 1 << 17,
    "gauge_max": 1 << 17,
    "histogram": 1 << 19,
    "summary": 1 << 17,
}

HEAD_BYTES = 8
_INT = struct.Struct("i")


def reserve(folder: Path) -> bool:
    """Take the room on the disk for this process's files before they are used.

    They are written through memory that is mapped to them, so without room the system would kill the process in the
    middle of a request.

    Returns:
        Whether there is room. If not, this process counts in its own memory, and answers for itself alone.
    """
    try:
        for kind, size in ROOM_BYTES.items():
            with (folder / f"{kind}_{os.getpid()}.db").open("ab") as file:
                _allocate(file.fileno(), size)
    except OSError as error:
        logger.error("no room for metrics, so this process counts for itself alone: %s", error)
        for kind in ROOM_BYTES:
            (folder / f"{kind}_{os.getpid()}.db").unlink(missing_ok=True)
        values.ValueClass = values.MutexValue
        return False
    return True


def _allocate(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)


def is_alive(pid: int) -> bool:
    """Tell whether there is such a process, ours or not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def forget_dead_workers(folder: Path) -> None:
    """Remove the live gauges of workers that are gone; what they counted stays, in as little room as it needs."""
    dead = {pid for path in folder.glob("*.db") if (pid := _pid_of(path)) and not is_alive(pid)}
    for pid in dead:
        try:
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
            for path in folder.glob(f"*_{pid}.db"):
                _shrink(path)
        except FileNotFoundError:  # another process was quicker
            continue


def _pid_of(path: Path) -> int:
    text = path.stem.rpartition("_")[2]
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _shrink(path: Path) -> None:
    with path.open("r+b") as file:
        head = file.read(_INT.size)
        used = max(_INT.unpack(head)[0], HEAD_BYTES) if len(head) == _INT.size else HEAD_BYTES
        if used == HEAD_BYTES:
            path.unlink()
        elif used < os.fstat(file.fileno()).st_size:
            file.truncate(used)


class Collector(MultiProcessCollector):
    """Adds up the workers' metrics, without the files that are broken: a bad disk must not end the scrape.

    Args:
        registry: to be registered in.
        folder: of the files.
    """

    def __init__(self, registry: CollectorRegistry, folder: Path):
        self._folder = folder
        super().__init__(registry, str(folder))  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[Metric]:
        """Return the metrics."""
        files = [str(path) for path in sorted(self._folder.glob("*.db")) if _is_whole(path)]
        try:
            return self._merge(files)
        except (ValueError, TypeError, KeyError, IndexError, OSError):
            return self._merge([path for path in files if self._can_be_read(path)])

    def _merge(self, files: list[str]) -> Iterable[Metric]:
        merged: Iterable[Metric] = self.merge(files, accumulate=True)  # type: ignore[no-untyped-call]
        return merged

    def _can_be_read(self, path: str) -> bool:
        try:
            self._merge([path])
        except (ValueError, TypeError, KeyError, IndexError, OSError) as error:
            logger.warning("%s is not counted: %s: %s", Path(path).name, type(error).__name__, error)
            return False
        return True


def _is_whole(path: Path) -> bool:
    """Tell whether the lengths in a file fit together; prometheus_client follows them wherever they lead."""
    try:
        data = path.read_bytes()
    except OSError:
        return False
    used = _INT.unpack_from(data)[0] if len(data) >= HEAD_BYTES else -1
    position = HEAD_BYTES if used else 0
    while HEAD_BYTES <= position < used <= len(data):
        length = _INT.unpack_from(data, position)[0] if position + 4 <= used else -1
        if length < 0:
            break
        position += 4 + length + 8 - (length + 4) % 8 + 16
    if position != used:
        logger.warning("%s is not counted: it is cut short or broken", path.name)
    return position == used
