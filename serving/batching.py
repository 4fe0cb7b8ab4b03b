"""MicroBatcher: many requests, few runs of the model.

Must not know: models, pictures, transports.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol

from serving.errors import DeadlineExceeded, QueueFull, ServingError
from serving.runtime import Outputs
from serving.waiting import Batch, Images, Waiting, deliver, drop_dead, images_in, joined

logger = logging.getLogger(__name__)

Run = Callable[[Images], Outputs]

# Weight of the newest batch in the running mean of seconds per image: about the last ten batches count.
NEWEST = 0.1

# How long a run takes at most that is made of an oversize request: so long others wait for it.
SLICE_S = 0.002


class Observer(Protocol):
    """What is told about batches; every method is called on the event loop and must be quick."""

    def ran(self, images: int, compute_s: float) -> None:
        """Note that a batch of `images` ran."""

    def waited(self, seconds: float) -> None:
        """Note how long a request waited before its first image ran."""

    def queued(self, images: int) -> None:
        """Note that `images` are waiting now."""


class MicroBatcher:
    """Runs what waits whenever the model is free; what arrives meanwhile forms the next batch.

    The first request that finds the model idle runs at once. Those that arrive in the same turn of the event loop, or
    while a batch runs in the worker thread, wait and run together, in the order of their arrival.

    Args:
        run: images uint8 (N, 28, 28) -> Outputs; called by one thread at a time.
        executor: runs the batches that are too large for the event loop; None runs all on the loop.
        max_batch_size: images of one run; a larger request is split, lets others in between, and is put together again.
        queue_size: images that may wait in requests of one batch, and as many more in larger ones.
        max_delay_s: how long the oldest image may wait for the batch to fill; 0 = no wait.
        inline_images: batches up to this size run on the event loop, where the way to a thread and back would cost
            more than the run; see `serving.warm_up`.
        singly: a batch saves less than it costs to wait for it, so that whatever finds the model idle runs at once.
        clock: monotonic seconds.
        observer: told about batches.
    """

    def __init__(
        self,
        run: Run,
        *,
        max_batch_size: int,
        queue_size: int,
        max_delay_s: float = 0.0,
        inline_images: int = 1,
        singly: bool = False,
        executor: Executor | None = None,
        clock: Callable[[], float] = time.monotonic,
        observer: Observer | None = None,
    ):
        self._run, self._clock, self._observer = run, clock, observer
        self._max_batch_size, self._queue_size, self._max_delay_s = max_batch_size, queue_size, max_delay_s
        self._executor = executor
        self._inline_images = max_batch_size if executor is None else min(inline_images, max_batch_size)
        self._direct_images = 0 if max_delay_s else self._inline_images
        self.singly = singly
        self._queue: deque[Waiting] = deque()
        self._oversize: deque[Waiting] = deque()
        self._oversize_next = False
        self._again: Batch = []
        self._waiting = 0
        self._busy = False
        self._seconds_per_image = 0.0
        self._filling: asyncio.TimerHandle | None = None
        self._running_since: float | None = None

    @property
    def running_since(self) -> float | None:
        """When the run in the worker thread began, on `clock`; None when none runs there."""
        return self._running_since

    @property
    def idle(self) -> bool:
        """Whether a small request would run at once."""
        return not self._busy and self._direct_images > 0

    @property
    def waiting_images(self) -> int:
        """How many images wait now."""
        return self._waiting

    async def submit(self, images: Images, deadline: float | None = None) -> Outputs:
        """Run images, together with others where that is quicker.

        Args:
            images: uint8, shape (N, 28, 28), N >= 0, validated by the caller.
            deadline: on `clock`; a request is dropped, not run, when it has passed.

        Raises:
            QueueFull: more images would wait than the queue may hold.
            DeadlineExceeded: the deadline passed first.
            ServingError: the model failed, on this request alone too.
        """
        now = self._clock()
        if deadline is not None and now >= deadline:
            raise DeadlineExceeded("the deadline had passed before the request could run")
        if not len(images):
            return self._run(images)
        try:
            outputs = self.run_now(images)
        except Exception as error:
            raise _failure(error) from error
        return await self._enqueue(images, deadline, now) if outputs is None else outputs

    def run_now(self, images: Images) -> Outputs | None:
        """Run images at once, or return None where others come first or there are too many for the event loop.

        Args:
            images: see `submit`; N >= 1.

        Raises:
            Exception: whatever the model raises.
        """
        if self._busy or len(images) > self._direct_images:
            return None
        if not self.singly:
            self._busy = True
            asyncio.get_running_loop().call_soon(self._next)
        started = self._clock()
        outputs = self._run(images)
        if self._observer:
            self._observer.waited(0.0)
        self._ran(len(images), self._clock() - started)
        return outputs

    async def _enqueue(self, images: Images, deadline: float | None, now: float) -> Outputs:
        # Counted apart: else one oversize request would have all others refused.
        oversize, ahead = len(images) > self._max_batch_size, images_in(self._oversize)
        ahead = ahead if oversize else self._waiting - ahead
        if ahead + len(images) > self._queue_size:
            wait_s = max(self._waiting * self._seconds_per_image, 0.001)
            raise QueueFull(f"{ahead} images are waiting; the queue holds {self._queue_size}", wait_s)
        loop = asyncio.get_running_loop()
        request = Waiting(images, deadline, now, loop.create_future())
        if deadline is not None:
            request.timer = loop.call_later(deadline - now, request.expire)
        (self._oversize if oversize else self._queue).append(request)
        self._waiting += request.size
        self._tell_queue()
        self._wake(loop)
        try:
            return await request.future
        finally:
            self._leave(request)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the next batch if nothing runs, or if the one that is being filled is full."""
        if not self._busy:
            self._busy = True
            loop.call_soon(self._next)
        elif self._filling and self._waiting >= self._max_batch_size:
            self._filling.cancel()
            self._filling = None
            loop.call_soon(self._next)

    def _leave(self, request: Waiting) -> None:
        """Free what a request still holds, however it ended."""
        if request.timer:
            request.timer.cancel()
        if request.left:
            self._waiting -= request.left
            request.taken = request.size
            self._tell_queue()

    def _next(self) -> None:
        """Run the next batch, or rest."""
        self._filling = None
        now = self._clock()
        while self._again:
            request, part = self._again.pop(0)
            if not request.future.done():
                self._start([(request, part)], now)
                return
        drop_dead(self._queue, now)
        drop_dead(self._oversize, now)
        heads = [queue[0] for queue in (self._queue, self._oversize) if queue]
        if not heads:
            self._busy = False
            return
        rest = min(head.arrived for head in heads) + self._max_delay_s - now
        if rest > 0 and self._waiting < self._max_batch_size:
            self._filling = asyncio.get_running_loop().call_later(rest, self._next)
            return
        self._start(self._take(now), now)

    def _take(self, now: float) -> Batch:
        """Take whole requests; every other time, where an oversize one waits, a slice of it before them."""
        batch: Batch = []
        room = self._max_batch_size
        if self._oversize and (self._oversize_next or not self._queue):
            room -= self._take_part(batch, self._oversize, self._slice(), now)
            self._oversize.rotate(-1)  # the others are next
            self._oversize_next = False
        else:
            self._oversize_next = True
        while self._queue and self._queue[0].size <= room:
            room -= self._take_part(batch, self._queue, room, now)
            drop_dead(self._queue, now)
        self._tell_queue()
        return batch

    def _take_part(self, batch: Batch, queue: deque[Waiting], most: int, now: float) -> int:
        """Put images of the first request into the batch, and return how many."""
        request = queue[0]
        if request.taken == 0 and self._observer:
            self._observer.waited(now - request.arrived)
        count = min(request.left, most)
        whole = count == request.size
        batch.append((request, request.images if whole else request.images[request.taken : request.taken + count]))
        request.taken += count
        self._waiting -= count
        return count

    def _slice(self) -> int:
        """Return how many images of an oversize request run at once."""
        if not self._seconds_per_image:
            return self._max_batch_size
        return min(max(round(SLICE_S / self._seconds_per_image), 1), self._max_batch_size)

    def _start(self, batch: Batch, now: float) -> None:
        try:
            if self._executor and sum(len(part) for _, part in batch) > self._inline_images:
                running = asyncio.get_running_loop().run_in_executor(self._executor, self._timed, batch)
                running.add_done_callback(lambda done: self._finished(batch, done))
                return
            outputs = self._run(joined(batch))
        except Exception as error:
            self._fail(batch, error)
        else:
            self._finish(batch, outputs, self._clock() - now)
        # Not at once: what has arrived meanwhile shall be read first, and run in the same batch.
        asyncio.get_running_loop().call_soon(self._next)

    def _timed(self, batch: Batch) -> tuple[Outputs, float]:
        started = self._running_since = self._clock()
        try:
            return self._run(joined(batch)), self._clock() - started
        finally:
            self._running_since = None

    def _finished(self, batch: Batch, done: "asyncio.Future[tuple[Outputs, float]]") -> None:
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        if error is not None:
            self._fail(batch, error)
        else:
            self._finish(batch, *done.result())
        self._next()

    def _finish(self, batch: Batch, outputs: Outputs, compute_s: float) -> None:
        deliver(batch, outputs)
        self._ran(len(outputs.logits), compute_s)

    def _ran(self, images: int, compute_s: float) -> None:
        if images:
            self._seconds_per_image += NEWEST * (compute_s / images - self._seconds_per_image)
        if self._observer:
            self._observer.ran(images, compute_s)

    def _fail(self, batch: Batch, error: BaseException) -> None:
        failure = _failure(error)
        if len(batch) > 1 and isinstance(error, Exception):
            self._again = batch  # what all together cannot have, memory for one, each may have alone
            return
        for request, _ in batch:
            request.fail(failure)

    def _tell_queue(self) -> None:
        if self._observer:
            self._observer.queued(self._waiting)


def _failure(error: BaseException) -> ServingError:
    logger.error("the model failed on a batch", exc_info=error)
    return ServingError("the model failed; the log says why")
