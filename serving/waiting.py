"""A request that waits for its images to be run, at once or in parts.

Must not know: when and how they are run.
"""

import asyncio
from collections import deque
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from serving.errors import DeadlineExceeded, ServingError
from serving.runtime import Outputs

Images = npt.NDArray[np.uint8]


class Waiting:
    """Images that wait, and the outputs that are there so far.

    Args:
        images: uint8 (N, 28, 28), N >= 1.
        deadline: when waiting makes no sense any more, or None.
        arrived: when they came, on the same clock.
        future: gets the outputs of all images.

    Attributes:
        taken: images that run, or have run.
    """

    __slots__ = ("arrived", "deadline", "future", "images", "parts", "size", "taken", "timer")

    def __init__(self, images: Images, deadline: float | None, arrived: float, future: "asyncio.Future[Outputs]"):
        self.images, self.size, self.taken = images, len(images), 0
        self.deadline, self.arrived, self.future = deadline, arrived, future
        self.parts: list[Outputs] = []
        self.timer: asyncio.TimerHandle | None = None

    @property
    def left(self) -> int:
        """How many images wait."""
        return self.size - self.taken

    def deliver(self, part: Outputs) -> None:
        """Take the outputs of the next images."""
        if self.future.done():
            return
        if len(part.logits) == self.size:
            self.future.set_result(part)
            return
        self.parts.append(part)
        if sum(len(each.logits) for each in self.parts) == self.size:
            self.future.set_result(Outputs(*(np.concatenate(each) for each in zip(*self.parts, strict=True))))

    def expire(self) -> None:
        """Fail for the deadline, unless the outputs are there."""
        self.fail(DeadlineExceeded("the deadline passed before the answer was ready"))

    def fail(self, error: ServingError) -> None:
        """Fail, unless the outputs are there."""
        if not self.future.done():
            self.future.set_exception(error)


# Requests, each with those of its images that run now.
Batch = list[tuple[Waiting, Images]]


def joined(batch: Batch) -> Images:
    """Return the images of a batch, in its order."""
    return batch[0][1] if len(batch) == 1 else np.concatenate([part for _, part in batch])


def deliver(batch: Batch, outputs: Outputs) -> None:
    """Give each request the outputs of its images, which are in the order of the batch."""
    start = 0
    for request, part in batch:
        stop = start + len(part)
        request.deliver(Outputs(outputs.logits[start:stop], outputs.probabilities[start:stop]))
        start = stop


def images_in(queue: Iterable[Waiting]) -> int:
    """Return how many images wait."""
    return sum(request.left for request in queue)


def drop_dead(queue: deque[Waiting], now: float) -> None:
    """Drop requests at the head that have run, whose caller has gone or whose deadline has passed."""
    while queue:
        request = queue[0]
        if request.deadline is not None and now >= request.deadline:
            request.expire()
        if not request.future.done() and request.left:
            return
        queue.popleft()
