"""Pictures decoded in processes: Python's part of it holds the interpreter's lock, for which threads wait.

Scans of 280x280 on two cores, benchmarks/offline.py: 680 pictures/s, in threads 536; by hand with nothing else, 779.

Must not know: models, output.
"""

import logging
import multiprocessing
import os
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType

from serving.errors import ServingError
from serving.offline.items import Items, Task
from serving.offline.pictures import Entries

logger = logging.getLogger(__name__)

# Fewer are decoded in less time than processes take to start.
MIN_PICTURES = 500


class PictureProcesses:
    """Decodes tasks: pictures in processes of their own once there are many, the rest in the calling thread.

    Args:
        workers: processes; with one, everything is decoded in the calling thread.
    """

    def __init__(self, workers: int):
        self._workers = workers
        self._lock = threading.Lock()
        self._pictures = 0
        self._pool: ProcessPoolExecutor | None = None
        self._started: Future[None] | None = None

    def __enter__(self) -> "PictureProcesses":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def decode(self, task: Task) -> Items:
        """Return the items of a task; safe to call from several threads.

        Raises:
            ServingError: a process was ended from outside.
        """
        pool = self._choose(task)
        if pool is None:
            return task.decode()
        try:
            return pool.submit(task.decode).result()
        except BrokenProcessPool as error:
            raise ServingError("a process that decodes pictures was ended; --resume goes on from here") from error

    def _choose(self, task: Task) -> ProcessPoolExecutor | None:
        """Return the processes if the task is theirs; while they start, the calling thread goes on."""
        if self._workers < 2 or not isinstance(task, Entries):
            return None
        with self._lock:
            self._pictures += len(task.entries)
            if self._pictures > MIN_PICTURES and self._pool is None:
                self._begin()
            return self._pool if self._started and self._started.done() else None

    def _begin(self) -> None:
        try:
            self._pool = ProcessPoolExecutor(self._workers, multiprocessing.get_context("spawn"), _live_with_parent)
            self._started = self._pool.submit(_start)
        except OSError as error:  # such as no shared memory, or no room for a process
            logger.warning("pictures are decoded in threads, processes cannot be started: %s", error)
            self._workers = 1


def _live_with_parent() -> None:
    # Ctrl-C is for the process that waits for this one. Killed, that one says nothing.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _start() -> None:
    """Import what decoding needs."""
    import serving.preprocess  # noqa: F401
