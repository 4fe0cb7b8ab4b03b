"""An inference: from a validated request to the tensors of its answer.

Must not know: how requests and answers travel.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

import numpy as np

from serving.errors import InvalidInput, NotReady, ServingError, TooLarge
from serving.heavy import here_or_alone
from serving.manifest import Manifest
from serving.protocol import outputs
from serving.protocol.messages import Images, InferenceRequest, InferenceResponse
from serving.runtime import Outputs


class Model(Protocol):
    """A model version that answers."""

    @property
    def name(self) -> str:
        """The model's name."""
        ...

    @property
    def version(self) -> str:
        """The version as text."""
        ...

    @property
    def manifest(self) -> Manifest:
        """Knows the labels."""
        ...

    async def infer(self, images: Images, deadline: float | None = None) -> Outputs:
        """Run the model on uint8 images (N, 28, 28) before `deadline`, monotonic seconds."""
        ...

    def infer_now(self, images: Images) -> Outputs | None:
        """Run the model at once, N >= 1; None where they must wait."""
        ...


class Picture(Protocol):
    """A picture in MNIST's form."""

    @property
    def image(self) -> Images:
        """The digit: uint8, shape (28, 28), 0 = paper, 255 = ink."""
        ...

    @property
    def blank(self) -> bool:
        """Whether there is no ink."""
        ...


# Classes as texts that are made on the event loop; 20,480 take 14 ms.
INLINE_TEXTS = 640

# Encoded pictures, and the deadline in monotonic seconds, to one picture or error for each.
Prepare = Callable[[Sequence[bytes], float], Awaitable[Sequence[Picture | ServingError]]]


class Inference:
    """Runs validated requests.

    Args:
        prepare: brings encoded pictures into MNIST's form.
        clock: monotonic seconds.
    """

    def __init__(self, prepare: Prepare, clock: Callable[[], float] = time.monotonic):
        self._prepare, self._clock = prepare, clock

    async def run(self, model: Model, request: InferenceRequest, deadline: float) -> InferenceResponse:
        """Answer a request.

        Args:
            model: the version to run.
            request: validated.
            deadline: monotonic seconds; the request may ask for less.

        Raises:
            InvalidInput, TooLarge: an element is no picture of a digit.
            QueueFull, DeadlineExceeded, ServingError: see `MicroBatcher.submit`.
        """
        content = request.content
        if request.timeout_s is not None:
            deadline = min(deadline, self._clock() + request.timeout_s)
        images = await self._read_pictures(content, deadline) if isinstance(content, list) else content
        result = await model.infer(images, deadline)
        texts = len(images) * sum(output.classes for output in request.outputs)
        return await here_or_alone(texts, INLINE_TEXTS, partial(_respond, model, request, result), deadline)

    async def _read_pictures(self, pictures: list[bytes], deadline: float) -> Images:
        prepared = await self._prepare(pictures, deadline)
        images = [_image(index, picture) for index, picture in enumerate(prepared)]
        return np.stack(images) if images else np.empty((0, 28, 28), np.uint8)


def run_now(model: Model, request: InferenceRequest) -> InferenceResponse | None:
    """Answer as `Inference.run`, at once; None where the request holds pictures, a time or nothing, or must wait."""
    content = request.content
    if isinstance(content, list) or request.timeout_s is not None or not len(content):
        return None
    result = model.infer_now(content)
    return None if result is None else _respond(model, request, result)


def _respond(model: Model, request: InferenceRequest, result: Outputs) -> InferenceResponse:
    tensors = outputs.build(result, request.outputs, model.manifest.labels)
    return InferenceResponse(model.name, model.version, request.id, tensors)


def _image(index: int, picture: Picture | ServingError) -> Images:
    """Return the image; a tensor has no way to say of one element that it failed, so the request fails."""
    if isinstance(picture, (TooLarge, NotReady)):
        raise type(picture)(f"element {index}: {picture}")
    if isinstance(picture, ServingError):
        raise InvalidInput(f"element {index}: {picture}") from picture
    if picture.blank:
        raise InvalidInput(f"element {index}: the picture is blank, there is no ink")
    return picture.image
