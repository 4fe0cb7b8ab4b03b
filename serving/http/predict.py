"""POST /predict: any picture to its digit.

Must not know: how a model is run, how a picture is prepared.
"""

import base64
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import cv2
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.catalogue import Catalogue
from serving.errors import InvalidInput, ServingError
from serving.heavy import here_or_alone, take_apart
from serving.http.bodies import BodyReader
from serving.http.compression import refuse_packed
from serving.http.errors import json_response
from serving.http.pictures import Item, read_items, text_bytes
from serving.http.queries import read_query
from serving.limits import Limits
from serving.metrics import Metrics
from serving.predictor import Prediction, Predictor
from serving.preparing import Preparer
from serving.preprocess import Prepared
from serving.settings import Settings
from serving.status import http_status, reason

PARAMETERS = {"model", "version", "include"}

# The answer of more takes above a millisecond, and that of 2048 forty: then it is made beside the event loop.
INLINE_ITEMS = 64


class PredictEndpoint:
    """Answers POST /predict.

    Args:
        catalogue: the models.
        preparer: prepares pictures.
        bodies: reads what is sent.
        settings: limits of size and time.
        metrics: told of every refusal.
    """

    def __init__(
        self, catalogue: Catalogue, preparer: Preparer, bodies: BodyReader, settings: Settings, metrics: Metrics
    ):
        self._catalogue, self._preparer, self._bodies, self._metrics = catalogue, preparer, bodies, metrics
        self._limits, self._timeout_s = Limits.of(settings), settings.request_timeout_s

    def routes(self) -> list[Route]:
        """Return the route."""
        return [Route("/predict", self.predict, methods=["POST"])]

    async def predict(self, request: Request) -> Response:
        """Return the digit of each picture in the body."""
        query = _read_query(request)
        refuse_packed(request.headers.get("content-encoding", ""))
        predictor = self._catalogue.get(query.get("model"), query.get("version"))
        request.scope["model"] = predictor.name
        body = await self._bodies.read(request)
        deadline = time.monotonic() + self._timeout_s
        content_type = request.headers.get("content-type", "")
        items = await take_apart(text_bytes(body, content_type), deadline, read_items, body, content_type, self._limits)
        results = await self._prepare(items, deadline)
        prepared = [result for result in results if isinstance(result, Prepared)]
        predictions = await predictor.predict(prepared, deadline) if prepared else []
        if refusal := _refusal(results):
            self._metrics.rejected[reason(refusal)].inc()
        status = http_status(refusal) if refusal else 200
        describing = partial(describe, predictor, items, results, predictions, include_input="include" in query)
        return await here_or_alone(len(items), INLINE_ITEMS, lambda: json_response(describing(), status), deadline)

    async def _prepare(self, items: Sequence[Item], deadline: float) -> list[Prepared | ServingError]:
        decoded = await self._preparer.prepare(encoded(items), deadline)
        return await here_or_alone(len(items), INLINE_ITEMS, lambda: complete(items, decoded), deadline)


def encoded(items: Sequence[Item]) -> list[bytes]:
    """Return the pictures that have to be decoded."""
    return [item.content for item in items if isinstance(item.content, bytes)]


def complete(items: Sequence[Item], decoded: Sequence[Prepared | ServingError]) -> list[Prepared | ServingError]:
    """Return every item as prepared: those that had to be decoded, and between them those that came as pixels."""
    rest = iter(decoded)
    return [next(rest) if isinstance(item.content, bytes) else _as_it_is(item.content) for item in items]


def _read_query(request: Request) -> dict[str, str]:
    query = read_query(request, PARAMETERS)
    if query.get("include", "input") != "input":
        raise InvalidInput(f"include: expected input, got {query['include'][:40]!r}")
    return query


def _as_it_is(content: Any) -> Prepared | ServingError:
    """Return pixels that have MNIST's form already as prepared."""
    if isinstance(content, ServingError):
        return content
    blank = bool(content.min() == content.max())
    return Prepared(image=content, blank=blank, polarity="light_on_dark", box=None, size=(28, 28), reasons=())


def _refusal(results: Sequence[Prepared | ServingError]) -> ServingError | None:
    """Return what is wrong with the first picture if none could be read."""
    errors = [result for result in results if isinstance(result, ServingError)]
    return errors[0] if errors and len(errors) == len(results) else None


def describe(
    predictor: Predictor,
    items: Sequence[Item],
    results: Sequence[Prepared | ServingError],
    predictions: Sequence[Prediction],
    *,
    include_input: bool,
) -> dict[str, object]:
    """Return the answer: the model, and of each item its prediction or what is wrong with it."""
    rest = iter(predictions)
    answers: list[dict[str, object]] = []
    for item, result in zip(items, results, strict=True):
        if isinstance(result, ServingError):
            answers.append({"error": str(result), "source": item.source})
            continue
        prediction = next(rest)
        answer: dict[str, object] = {
            "digit": prediction.digit,
            "confidence": prediction.confidence,
            "probabilities": prediction.probabilities,
            "accepted": prediction.accepted,
            "reasons": prediction.reasons,
            "source": item.source,
        }
        if include_input:
            answer["input"] = _describe_input(result)
        answers.append(answer)
    return {"model": {"name": predictor.name, "version": predictor.version}, "predictions": answers}


def _describe_input(picture: Prepared) -> dict[str, object]:
    _, png = cv2.imencode(".png", picture.image)
    url = "data:image/png;base64," + base64.b64encode(png.tobytes()).decode()
    return {"image": url, "box": picture.box, "size": picture.size, "polarity": picture.polarity}
