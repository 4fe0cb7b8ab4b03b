"""Pictures decoded in processes: Python's part of it holds the interpreter's lock, for which threads wait.

Scans of 280x280 on two cores, benchmarks/offline.py: 680 pictures/s, in threads 536; by hand with nothing else, 779.

Must not know: models, output.
"""

import logging
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType

from serving.offline.apart import decode_apart, decoding_processes, start
from serving.offline.items import Items, Task
from serving.offline.pictures import Entries

logger = logging.getLogger(__name__)

# Fewer are decoded in less time than processes take to start.
MIN_PICTURES = 500


class PictureProcesses:
    """Decodes tasks: pictures in processes of their own once there are many, the rest in the calling thread.

    Args:
        workers: processes; with one, everything is decoded in the calling thread.
        careful: every picture is decoded in a process, for one of them may have ended a run before this one.
    """

    def __init__(self, workers: int, careful: bool = False):
        self._workers, self._careful = workers, careful
        self._lock, self._one_at_a_time = threading.Lock(), threading.Lock()
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
            ServingError: processes are ended whatever they decode.
        """
        if not isinstance(task, Entries) or (pool := self._choose(task)) is None:
            return task.decode()
        try:
            return pool.submit(task.decode_or_end).result()
        except BrokenProcessPool:
            return self._decode_apart(task, pool)

    def _choose(self, task: Entries) -> ProcessPoolExecutor | None:
        """Return the processes if the task is theirs; while they start, the calling thread goes on."""
        with self._lock:
            self._pictures += len(task.entries)
            if self._pool is None and (self._careful or (self._workers > 1 and self._pictures > MIN_PICTURES)):
                self._begin()
            return self._pool if self._careful or (self._started and self._started.done()) else None

    def _begin(self) -> None:
        try:
            self._pool = decoding_processes(self._workers)
            self._started = self._pool.submit(start)
        except OSError as error:  # such as no shared memory, or no room for a process
            logger.warning("pictures are decoded in threads, processes cannot be started: %s", error)
            self._workers, self._careful = 1, False

    def _decode_apart(self, task: Entries, broken: ProcessPoolExecutor) -> Items:
        with self._lock:
            if self._pool is broken:
                logger.warning("a process that decodes pictures was ended; what it held is decoded once more")
                broken.shutdown(wait=False)
                self._pool, self._careful = None, True
        with self._one_at_a_time:  # what was ended for want of memory has more of it now
            return decode_apart(task)
