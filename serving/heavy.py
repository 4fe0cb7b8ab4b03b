"""Heavy work beside the event loop, a piece at a time: who asks for much waits for others who do, and nobody else.

With a thread for each, compressed bodies of 33 MB on eight connections took all cores: p99 went from 50 ms to 1.4 s.
Must not know: what the work is.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from serving.errors import DeadlineExceeded

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bytes, Sequence[Any])

# Of a body that is worked on at a time: others have the interpreter between two pieces.
PIECE_BYTES = 262_144

# What is parsed on the event loop: half a millisecond of work.
INLINE_TEXT_BYTES = 32_768

# What is copied or converted on the event loop, in a few milliseconds at most.
INLINE_BYTES = 1_048_576

# The longest rest between two pieces of work.
MAX_REST_S = 0.1


def give_way() -> None:
    """Let those have the interpreter at once who wait for it; they would be given it after 0.1 ms, each time they ask.

    With this after every 8 KiB of JSON, p99 of pictures beside the largest tensors as JSON was 23 ms; without it, 34.
    """
    time.sleep(0)


def pieces(whole: S, size: int) -> Iterator[S]:
    """Yield slices of so many elements, and give way after each; a whole that is no longer than one as it is."""
    if len(whole) <= size:
        yield whole
        return
    for start in range(0, len(whole), size):
        yield whole[start : start + size]
        give_way()


async def in_thread(executor: Executor, work: Callable[[], T]) -> T:
    """Return what `work` returns; whoever leaves before its turn takes along what it holds.

    An executor keeps what was taken back until its turn comes, as it did twenty bodies of 33 MB whose callers had left.
    """
    held = [work]

    def run() -> T:
        try:
            mine = held[0]
        except IndexError:
            raise CancelledError from None
        return mine()

    try:
        return await asyncio.get_running_loop().run_in_executor(executor, run)
    finally:
        held.clear()


class Desk:
    """One thread, which between two pieces of work rests as long as the first took: half the time is for the others.

    Without the rest, large JSON bodies on four connections kept the interpreter from pictures in other threads: their
    median went from 6 to 37 ms, with it to 10.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "heavy")
        self._free_at = 0.0

    async def run(self, work: Callable[[], T], deadline: float | None = None, end: str = "the body was read") -> T:
        """Return what `work` returns, once the work before it is done, after which `end`.

        Raises:
            DeadlineExceeded: `deadline`, monotonic seconds, passed first; what has not begun is not done then.
        """
        try:
            async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
                return await in_thread(self._thread, partial(self._piece, work))
        except TimeoutError:
            raise DeadlineExceeded(f"the deadline passed before {end}") from None

    def _piece(self, work: Callable[[], T]) -> T:
        started = time.monotonic()
        if started < self._free_at:
            time.sleep(self._free_at - started)
            started = time.monotonic()
        try:
            return work()
        except StopIteration as error:  # a future takes none, and whoever waits for it would wait for ever
            raise RuntimeError("the work stopped an iteration that is not its own") from error
        finally:
            ended = time.monotonic()
            self._free_at = ended + min(ended - started, MAX_REST_S)


alone = Desk().run


async def here_or_alone(size: int, most: int, work: Callable[[], T], deadline: float) -> T:
    """Return what `work` returns, beside the event loop where there is more than `most` to do.

    Raises:
        DeadlineExceeded: see `Desk.run`.
    """
    return work() if size <= most else await alone(work, deadline, "the answer was made")


async def take_apart(text_bytes: int, deadline: float, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what `read` makes of its arguments, beside the event loop where it has much text to parse.

    Raises:
        DeadlineExceeded: see `Desk.run`.
    """
    if text_bytes <= INLINE_TEXT_BYTES:
        return read(*args, **kwargs)
    return await alone(partial(read, *args, **kwargs), deadline)
