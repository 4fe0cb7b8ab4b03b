"""POST /classify: pixels as BentoML's own client sends them.

BentoML itself would parse them on the event loop, which 2,000 images as JSON kept from others for 0.6 s.
Must not know: BentoML, how a model is run.
"""

import time
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.catalogue import Catalogue
from serving.errors import InvalidInput
from serving.heavy import here_or_alone, take_apart
from serving.http.bodies import BodyReader
from serving.http.compression import refuse_packed
from serving.http.errors import json_response
from serving.http.pictures import read_pixels
from serving.http.predict import INLINE_ITEMS
from serving.http.strict_json import read_json
from serving.http.v2 import check_media_type
from serving.http.v2_messages import JSON
from serving.limits import Limits
from serving.predictor import Predictor
from serving.runtime import Outputs
from serving.settings import Settings


class ClassifyEndpoint:
    """Answers POST /classify by the default model.

    Args:
        catalogue: the models.
        bodies: reads what is sent.
        settings: limits of size and time.
    """

    def __init__(self, catalogue: Catalogue, bodies: BodyReader, settings: Settings):
        self._catalogue, self._bodies = catalogue, bodies
        self._limits, self._timeout_s = Limits.of(settings), settings.request_timeout_s

    def routes(self) -> list[Route]:
        """Return the route."""
        return [Route("/classify", self.classify, methods=["POST"])]

    async def classify(self, request: Request) -> Response:
        """Return digits, confidences, probabilities and whether each is accepted; and the model."""
        check_media_type(request.headers.get("content-type", ""), (JSON,))
        refuse_packed(request.headers.get("content-encoding", ""))
        predictor = self._catalogue.get()
        request.scope["model"] = predictor.name
        body = await self._bodies.read(request)
        deadline = time.monotonic() + self._timeout_s
        images = await take_apart(len(body), deadline, read_images, body, self._limits)
        outputs = await predictor.infer(images, deadline)
        answer = partial(describe, predictor, outputs)
        return await here_or_alone(len(images), INLINE_ITEMS, lambda: json_response(answer()), deadline)


def read_images(body: bytes, limits: Limits) -> npt.NDArray[np.uint8]:
    """Return the images of a body, uint8 (N, 28, 28), N >= 0.

    Raises:
        InvalidInput, TooLarge: see `read_json` and `read_pixels`; or it is no object with the one key `images`.
    """
    root, only_numbers = read_json(body, limits)
    if not isinstance(root, dict) or list(root) != ["images"]:
        raise InvalidInput('expected {"images": 28x28 integers 0 to 255, or several}')
    return read_pixels(root["images"], limits.images, only_numbers=only_numbers)


def describe(predictor: Predictor, outputs: Outputs) -> dict[str, Any]:
    """Return the answer."""
    confidences = outputs.probabilities.max(axis=1)
    return {
        "model": {"name": predictor.name, "version": predictor.version},
        "digits": outputs.probabilities.argmax(axis=1).tolist(),
        "confidences": confidences.tolist(),
        "probabilities": outputs.probabilities.tolist(),
        "accepted": (confidences >= predictor.manifest.acceptance.min_confidence).tolist(),
    }
