"""Trials: which versions ended the processes that loaded them, so that those that come after them load them no more.

Must not know: models, transports.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

from serving.errors import ModelRejected

# After that a reload tries again: something else may have ended the process, such as the kernel for want of memory.
FORGOTTEN_S = 600.0

BEGUN, PASSED = b"begun", b"passed"


class Trials:
    """A file for each version in the private folder of the instance, which tells when a process that loads it ends.

    Args:
        folder: shared by the workers of one instance; None for a lone process without one.
        clock: seconds, by which files are dated.
    """

    def __init__(self, folder: Path | None, clock: Callable[[], float] = time.time):
        self._folder, self._clock = folder, clock

    @contextlib.contextmanager
    def trial(self, digest: str) -> Iterator[None]:
        """Load a version within this: one process at a time, until the first has loaded it.

        Args:
            digest: hexadecimal, another for every version.

        Raises:
            ModelRejected: it ended the last process that tried.
        """
        file = self._open(digest)
        if file is None:
            yield
            return
        with file:
            if _content(file) == PASSED:
                yield
                return
            fcntl.flock(file, fcntl.LOCK_EX)
            self._check(file)
            _write(file, BEGUN)
            state = b""
            try:
                yield
                state = PASSED
            finally:
                _write(file, state)

    def _open(self, digest: str) -> FileIO | None:
        try:
            return (self._folder / f"{digest}.trial").open("a+b", buffering=0) if self._folder else None
        except OSError:  # a full disk is no reason to load nothing
            return None

    def _check(self, file: FileIO) -> None:
        ago_s = self._clock() - os.fstat(file.fileno()).st_mtime
        if _content(file) == BEGUN and ago_s < FORGOTTEN_S:
            found = f"the end of the process that began it {ago_s:.0f} s ago"
            raise ModelRejected("loading", found, f"that it goes on; after {FORGOTTEN_S:g} s a reload tries again")


def _content(file: FileIO) -> bytes:
    file.seek(0)
    return file.read()


def _write(file: FileIO, state: bytes) -> None:
    with contextlib.suppress(OSError):
        file.truncate(0)
        file.write(state)
