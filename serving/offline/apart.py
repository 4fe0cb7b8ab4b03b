"""Pictures whose process was ended, decoded again away from all others: one that ends it costs its own row alone.

Must not know: models, output.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

from serving.errors import ServingError
from serving.memory import keep_free
from serving.offline.items import Items
from serving.offline.pictures import Entries, Entry

ENDED = "the decoder failed: it ended its process, or came to no end"


def decoding_processes(count: int) -> ProcessPoolExecutor:
    """Return processes for `Entries.decode_or_end`, which end with this one.

    Raises:
        OSError: such as no shared memory, or no room for a process.
    """
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _begin)


def start() -> None:
    """Import what decoding needs."""
    import serving.preprocess  # noqa: F401


def decode_apart(task: Entries) -> Items:
    """Return the items of a task whose process was ended, by one of its pictures, another task's, or from outside.

    Raises:
        ServingError: processes are ended whatever they decode, or cannot be started.
    """
    try:
        with _one_process() as process:
            return process.submit(task.decode_or_end).result()
    except BrokenProcessPool:
        harmless = replace(task, entries=tuple(_tried(task)))
    try:
        with _one_process() as process:
            return process.submit(harmless.decode_or_end).result()
    except BrokenProcessPool as error:
        raise _stopped() from error


def _tried(task: Entries) -> Iterator[Entry]:
    """Yield the entries of a task, without its picture and with an error each that ends its process."""
    waiting = list(reversed(task.entries))
    while waiting:
        with _one_process() as process:
            while waiting:
                entry = waiting.pop()
                try:
                    process.submit(replace(task, entries=(entry,)).decode_or_end).result()
                except BrokenProcessPool:
                    yield replace(entry, data=b"", error=ENDED)
                    break
                yield entry


def _one_process() -> ProcessPoolExecutor:
    try:
        process = decoding_processes(1)
        process.submit(start).result()
    except (OSError, BrokenProcessPool) as error:
        raise _stopped() from error
    return process


def _stopped() -> ServingError:
    return ServingError("processes that decode pictures are ended, or cannot be started; --resume goes on from here")


def _begin() -> None:
    keep_free()
    # Ctrl-C is for the process that waits for this one. Killed, that one says nothing.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
