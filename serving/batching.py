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

import numpy as np
import numpy.typing as npt

from serving.errors import DeadlineExceeded, QueueFull, ServingError
from serving.runtime import Outputs

logger = logging.getLogger(__name__)

Images = npt.NDArray[np.uint8]
Run = Callable[[Images], Outputs]

# Weight of the newest batch in the running mean of seconds per image: about the last ten batches count.
NEWEST = 0.1


class Observer(Protocol):
    """What is told about batches; every method is called on the event loop and must be quick."""

    def ran(self, images: int, compute_s: float) -> None:
        """Note that a batch of `images` ran."""

    def waited(self, seconds: float) -> None:
        """Note how long a request waited before its first image ran."""

    def queued(self, images: int) -> None:
        """Note that `images` are waiting now."""


class _Request:
    """Images that wait, and the outputs that are there so far."""

    __slots__ = ("arrived", "deadline", "future", "images", "parts", "size", "taken", "timer")

    def __init__(self, images: Images, deadline: float | None, arrived: float, future: "asyncio.Future[Outputs]"):
        self.images, self.size, self.taken = images, len(images), 0
        self.deadline, self.arrived, self.future = deadline, arrived, future
        self.parts: list[Outputs] = []
        self.timer: asyncio.TimerHandle | None = None


_Batch = list[tuple[_Request, Images]]


class MicroBatcher:
    """Runs what waits whenever the model is free; what arrives meanwhile forms the next batch.

    The first request that finds the model idle runs at once. Those that arrive in the same turn of the event loop, or
    while a batch runs in the worker thread, wait and run together, in the order of their arrival.

    Args:
        run: images uint8 (N, 28, 28) -> Outputs; called by one thread at a time.
        executor: runs the batches that are too large for the event loop; None runs all on the loop.
        max_batch_size: images of one run; a larger request is split and put together again.
        queue_size: images that may wait.
        max_delay_s: how long the oldest image may wait for the batch to fill; 0 = no wait.
        inline_images: batches up to this size run on the event loop, where the way to a thread and back would cost
            more than the run; see `serving.warm_up`.
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
        executor: Executor | None = None,
        clock: Callable[[], float] = time.monotonic,
        observer: Observer | None = None,
    ):
        self._run, self._clock, self._observer = run, clock, observer
        self._max_batch_size, self._queue_size, self._max_delay_s = max_batch_size, queue_size, max_delay_s
        self._executor = executor
        self._inline_images = max_batch_size if executor is None else min(inline_images, max_batch_size)
        self._direct_images = 0 if max_delay_s else self._inline_images
        self._queue: deque[_Request] = deque()
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
            ServingError: the model failed.
        """
        size = len(images)
        now = self._clock()
        if deadline is not None and now >= deadline:
            raise DeadlineExceeded("the deadline had passed before the request could run")
        if not size:
            return self._run(images)
        if not self._busy and size <= self._direct_images:
            return self._run_directly(images, now)
        return await self._enqueue(images, deadline, now)

    def _run_directly(self, images: Images, now: float) -> Outputs:
        self._busy = True
        asyncio.get_running_loop().call_soon(self._next)
        try:
            outputs = self._run(images)
        except Exception as error:
            raise _failure(error) from error
        if self._observer:
            self._observer.waited(0.0)
        self._ran(len(images), self._clock() - now)
        return outputs

    async def _enqueue(self, images: Images, deadline: float | None, now: float) -> Outputs:
        if self._waiting + len(images) > self._queue_size:
            wait_s = max(self._waiting * self._seconds_per_image, 0.001)
            raise QueueFull(f"{self._waiting} images are waiting; the queue holds {self._queue_size}", wait_s)
        loop = asyncio.get_running_loop()
        request = _Request(images, deadline, now, loop.create_future())
        if deadline is not None:
            request.timer = loop.call_later(deadline - now, _expire, request.future)
        self._queue.append(request)
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

    def _leave(self, request: _Request) -> None:
        """Free what a request still holds, however it ended."""
        if request.timer:
            request.timer.cancel()
        left = request.size - request.taken
        if left:
            request.taken = request.size
            self._waiting -= left
            self._tell_queue()

    def _next(self) -> None:
        """Run the next batch, or rest."""
        self._filling = None
        now = self._clock()
        self._drop_dead(now)
        if not self._queue:
            self._busy = False
            return
        rest = self._queue[0].arrived + self._max_delay_s - now
        if rest > 0 and self._waiting < self._max_batch_size:
            self._filling = asyncio.get_running_loop().call_later(rest, self._next)
            return
        self._start(self._take(now), now)

    def _drop_dead(self, now: float) -> None:
        """Drop requests at the head whose caller has gone or whose deadline has passed."""
        while self._queue:
            request = self._queue[0]
            if request.deadline is not None and now >= request.deadline:
                _expire(request.future)
            if not request.future.done() and request.taken < request.size:
                return
            self._queue.popleft()

    def _take(self, now: float) -> _Batch:
        """Take whole requests, or as much of an oversize one as there is room for."""
        batch: _Batch = []
        room = self._max_batch_size
        while room and self._queue:
            request = self._queue[0]
            left = request.size - request.taken
            if left > room and request.size <= self._max_batch_size:
                break
            if request.taken == 0 and self._observer:
                self._observer.waited(now - request.arrived)
            count = min(left, room)
            whole = count == request.size
            batch.append((request, request.images if whole else request.images[request.taken : request.taken + count]))
            request.taken += count
            room -= count
            self._waiting -= count
            self._drop_dead(now)
        self._tell_queue()
        return batch

    def _start(self, batch: _Batch, now: float) -> None:
        images = batch[0][1] if len(batch) == 1 else np.concatenate([part for _, part in batch])
        if self._executor is None or len(images) <= self._inline_images:
            try:
                outputs = self._run(images)
            except Exception as error:
                self._fail(batch, error)
            else:
                self._finish(batch, outputs, self._clock() - now)
            # Not at once: what has arrived meanwhile shall be read first, and run in the same batch.
            asyncio.get_running_loop().call_soon(self._next)
            return
        running = asyncio.get_running_loop().run_in_executor(self._executor, self._timed, images)
        running.add_done_callback(lambda done: self._finished(batch, done))

    def _timed(self, images: Images) -> tuple[Outputs, float]:
        started = self._running_since = self._clock()
        try:
            return self._run(images), self._clock() - started
        finally:
            self._running_since = None

    def _finished(self, batch: _Batch, done: "asyncio.Future[tuple[Outputs, float]]") -> None:
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        if error is not None:
            self._fail(batch, error)
        else:
            self._finish(batch, *done.result())
        self._next()

    def _finish(self, batch: _Batch, outputs: Outputs, compute_s: float) -> None:
        start = 0
        for request, part in batch:
            stop = start + len(part)
            _deliver(request, Outputs(outputs.logits[start:stop], outputs.probabilities[start:stop]))
            start = stop
        self._ran(start, compute_s)

    def _ran(self, images: int, compute_s: float) -> None:
        if images:
            self._seconds_per_image += NEWEST * (compute_s / images - self._seconds_per_image)
        if self._observer:
            self._observer.ran(images, compute_s)

    def _fail(self, batch: _Batch, error: BaseException) -> None:
        failure = _failure(error)
        for request, _ in batch:
            if not request.future.done():
                request.future.set_exception(failure)

    def _tell_queue(self) -> None:
        if self._observer:
            self._observer.queued(self._waiting)


def _failure(error: BaseException) -> ServingError:
    logger.error("the model failed on a batch", exc_info=error)
    return ServingError("the model failed; the log says why")


def _deliver(request: _Request, part: Outputs) -> None:
    if request.future.done():
        return
    if len(part.logits) == request.size:
        request.future.set_result(part)
        return
    request.parts.append(part)
    if sum(len(each.logits) for each in request.parts) == request.size:
        request.future.set_result(Outputs(*(np.concatenate(each) for each in zip(*request.parts, strict=True))))


def _expire(future: "asyncio.Future[Outputs]") -> None:
    if not future.done():
        future.set_exception(DeadlineExceeded("the deadline passed before the answer was ready"))
