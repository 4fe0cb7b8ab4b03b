"""Preparer: pictures to 28x28, small ones at once, others in threads, never more at a time than there is room for.

Must not know: transports, models.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor

from serving.errors import DeadlineExceeded, NotReady, QueueFull, ServingError, forget_frames
from serving.preprocess import LargePicture, Prepared, prepare

logger = logging.getLogger(__name__)

# A 28x28 PNG has 250 to 500 bytes and takes 50 us (benchmarks/preprocessing.py), which is not worth the way to a
# thread: see serving.warm_up. The pixels count, too: a WebP of 900 bytes can hold sixteen megapixels.
SMALL_BYTES, SMALL_PIXELS = 1024, 100_000

# Of these one is decoded at a time, so that neither the memory nor the threads of all others go to a few of them.
LARGE_PIXELS = 4_000_000

# About thirty pictures of 28x28, 5 ms of work, or one photo.
GROUP_BYTES = 8 * 1024

Result = Prepared | ServingError


class Preparer:
    """Prepares the pictures of requests.

    Args:
        executor: for most of them.
        large: for those above `LARGE_PIXELS`, one thread.
        max_pixels: of one picture.
        max_waiting: pictures that may wait for a thread.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        executor: Executor,
        large: Executor,
        max_pixels: int,
        max_waiting: int,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._large = large
        self._executor, self._max_pixels, self._max_waiting = executor, max_pixels, max_waiting
        self._clock = clock
        self._waiting = 0

    async def prepare(self, pictures: Sequence[bytes], deadline: float | None = None) -> list[Result]:
        """Return each picture as a prepared one, or what is wrong with it.

        Raises:
            QueueFull: too many pictures wait for a thread.
            DeadlineExceeded: the deadline passed first.
        """
        prepared = self.prepare_now(pictures)
        if prepared is not None:
            return prepared
        if self._waiting + len(pictures) > self._max_waiting:
            raise QueueFull(f"{self._waiting} pictures wait to be prepared; there is room for {self._max_waiting}", 1.0)
        return await self._in_threads(pictures, deadline)

    def prepare_now(self, pictures: Sequence[bytes]) -> list[Result] | None:
        """Return the same as `prepare` at once where the pictures are small; None where they are worth a thread."""
        if sum(map(len, pictures)) > SMALL_BYTES:
            return None
        results = []
        for picture in pictures:
            result = self._prepare(picture, SMALL_PIXELS)
            if result is None:
                return None
            results.append(result)
        return results

    async def _in_threads(self, pictures: Sequence[bytes], deadline: float | None) -> list[Result]:
        loop = asyncio.get_running_loop()
        self._waiting += len(pictures)
        try:
            groups = [
                loop.run_in_executor(self._executor, self._prepare_all, group, deadline, LARGE_PIXELS)
                for group in _group(pictures)
            ]
            results = [result for group in await asyncio.gather(*groups) for result in group]
            return [
                await self._prepare_alone(picture, deadline) if result is None else result
                for picture, result in zip(pictures, results, strict=True)
            ]
        finally:
            self._waiting -= len(pictures)

    async def _prepare_alone(self, picture: bytes, deadline: float | None) -> Result:
        run = asyncio.get_running_loop().run_in_executor
        (result,) = await run(self._large, self._prepare_all, [picture], deadline, None)
        assert result is not None
        return result

    def _prepare_all(
        self, pictures: Sequence[bytes], deadline: float | None, pixels_here: int | None
    ) -> list[Result | None]:
        results = []
        for picture in pictures:
            if deadline is not None and self._clock() >= deadline:
                raise DeadlineExceeded("the deadline passed before the picture was prepared")
            results.append(self._prepare(picture, pixels_here))
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
