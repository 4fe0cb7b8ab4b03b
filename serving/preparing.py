"""Preparer: pictures to 28x28, small ones at once, others in threads, never more at a time than there is room for.

Must not know: transports, models.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from functools import partial

from serving.errors import DeadlineExceeded, NotReady, QueueFull, ServingError, forget_frames
from serving.heavy import in_thread
from serving.preprocess import LargePicture, Prepared, prepare

logger = logging.getLogger(__name__)

# A 28x28 PNG has 250 to 500 bytes and takes 50 us (benchmarks/preprocessing.py), which is not worth the way to a
# thread: see serving.warm_up. The pixels count, too: a WebP of 900 bytes can hold sixteen megapixels.
SMALL_BYTES, SMALL_PIXELS = 1024, 100_000

# No further small picture is begun at once after so long. One that is not of MNIST's form takes 3 ms.
AT_ONCE_S = 0.002

# Of these one is decoded at a time, so that neither the memory nor the threads of all others go to a few of them.
LARGE_PIXELS = 4_000_000

# About twelve pictures of 28x28, or three of 512x512, 15 ms of work, or one photo.
GROUP_BYTES = 4 * 1024

# After a small request, others are expected for so long.
SMALL_S = 1.0

LATE = "the deadline passed before the picture was prepared"

Result = Prepared | ServingError


class Preparer:
    """Prepares the pictures of requests.

    Args:
        executor: for most of them.
        large: for those above `LARGE_PIXELS`, one thread.
        max_pixels: of one picture.
        max_waiting: pictures that may wait for a thread in requests of one group, and as many more in larger ones.
        threads: of `executor`.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        executor: Executor,
        large: Executor,
        max_pixels: int,
        max_waiting: int,
        threads: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._large, self._threads = large, threads
        self._executor, self._max_pixels, self._max_waiting = executor, max_pixels, max_waiting
        self._clock = clock
        self._waiting = {False: 0, True: 0}
        # Groups of large requests run one to a thread, so that none of them waits before a small request. Where there
        # are small requests, one thread is for them alone.
        self._turns, self._fewer_turns = asyncio.Semaphore(threads), asyncio.Semaphore(max(threads - 1, 1))
        self._small_until = -math.inf
        self._begun: dict[int, float] = {}

    @property
    def running_since(self) -> float | None:
        """When the picture was begun that has been longest in a thread, monotonic seconds; None while none is."""
        return min(list(self._begun.values()), default=None)  # the threads change it meanwhile

    async def prepare(self, pictures: Sequence[bytes], deadline: float | None = None) -> list[Result]:
        """Return each picture as a prepared one, or what is wrong with it.

        Raises:
            QueueFull: too many pictures wait for a thread.
            DeadlineExceeded: the deadline passed first.
        """
        begun = self._begin(pictures)
        pictures = pictures[len(begun) :]
        if not pictures:
            return begun
        groups = list(_group(pictures))
        many = len(groups) > 1
        if self._waiting[many] + len(pictures) > self._max_waiting:
            waiting = self._waiting[many]
            raise QueueFull(f"{waiting} pictures wait to be prepared; there is room for {self._max_waiting}", 1.0)
        if not many:
            self._small_until = self._clock() + SMALL_S
        self._waiting[many] += len(pictures)
        try:
            # A decoder may never come back, and then no thread looks at the deadline of who waits for it.
            async with asyncio.timeout(None if deadline is None else deadline - self._clock()):
                results = await self._in_turns(groups, deadline) if many else await self._in_thread(groups[0], deadline)
                return begun + [
                    await self._prepare_alone(picture, deadline) if result is None else result
                    for picture, result in zip(pictures, results, strict=True)
                ]
        except TimeoutError:
            raise DeadlineExceeded(LATE) from None
        finally:
            self._waiting[many] -= len(pictures)

    def prepare_now(self, pictures: Sequence[bytes]) -> list[Result] | None:
        """Return the same as `prepare` at once where the pictures are small; None where they are worth a thread."""
        begun = self._begin(pictures)
        return begun if len(begun) == len(pictures) else None

    def _begin(self, pictures: Sequence[bytes]) -> list[Result]:
        """Prepare pictures from the first on, as long as they are small and take no time."""
        results: list[Result] = []
        if sum(map(len, pictures)) > SMALL_BYTES:
            return results
        stop = self._clock() + AT_ONCE_S
        for picture in pictures:
            result = self._prepare(picture, SMALL_PIXELS) if self._clock() < stop else None
            if result is None:
                break
            results.append(result)
        return results

    async def _in_turns(self, groups: Sequence[Sequence[bytes]], deadline: float | None) -> list[Result | None]:
        """Prepare groups in turns with those of other large requests."""
        results: list[list[Result | None]] = [[] for _ in groups]
        rest = iter(enumerate(groups))

        async def go_on() -> None:
            for place, group in rest:
                async with self._turns, self._fewer_turns if self._clock() < self._small_until else nullcontext():
                    results[place] = await self._in_thread(group, deadline)

        await asyncio.gather(*(go_on() for _ in range(self._threads)))
        return [result for group in results for result in group]

    async def _in_thread(self, pictures: Sequence[bytes], deadline: float | None) -> list[Result | None]:
        return await in_thread(self._executor, partial(self._prepare_all, pictures, deadline, LARGE_PIXELS))

    async def _prepare_alone(self, picture: bytes, deadline: float | None) -> Result:
        (result,) = await in_thread(self._large, partial(self._prepare_all, [picture], deadline, None))
        assert result is not None
        return result

    def _prepare_all(
        self, pictures: Sequence[bytes], deadline: float | None, pixels_here: int | None
    ) -> list[Result | None]:
        thread, results = threading.get_ident(), []
        try:
            for picture in pictures:
                self._begun[thread] = now = self._clock()
                if deadline is not None and now >= deadline:
                    raise DeadlineExceeded(LATE)
                results.append(self._prepare(picture, pixels_here))
        finally:
            self._begun.pop(thread, None)
        return results

    def _prepare(self, picture: bytes, pixels_here: int | None) -> Result | None:
        """Return the picture prepared or what is wrong with it; None where it has more than `pixels_here`."""
        try:
            return prepare(picture, self._max_pixels, pixels_here)
        except LargePicture:
            return None
        except ServingError as error:
            return forget_frames(error)
        except MemoryError:
            logger.exception("no memory for a picture of %d bytes", len(picture))
            return NotReady("there is no memory for this picture now; try again later")


def _group(pictures: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Yield runs of pictures that are worth one way to a thread."""
    start = size = 0
    for place, picture in enumerate(pictures):
        size += len(picture)
        if size >= GROUP_BYTES:
            yield pictures[start : place + 1]
            start, size = place + 1, 0
    if start < len(pictures):
        yield pictures[start:]
