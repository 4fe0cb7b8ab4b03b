"""GET and POST /explain: the inside of a network, and what it makes of one picture.

Must not know: how a network is run or explained.
"""

import asyncio
import base64
import time
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.catalogue import Catalogue
from serving.errors import DeadlineExceeded, InvalidInput, QueueFull, ServingError, Unsupported
from serving.explain import COVER_SIDE, LayeredModel, cover, occlusion_map
from serving.heavy import take_apart
from serving.http.bodies import BodyReader
from serving.http.compression import refuse_packed
from serving.http.errors import json_response
from serving.http.pictures import read_items, text_bytes
from serving.http.queries import read_query
from serving.limits import Limits
from serving.predictor import Predictor
from serving.preparing import Preparer
from serving.repository import LoadedModel
from serving.settings import Settings

PARAMETERS = {"GET": {"model", "version"}, "POST": {"model", "version", "include"}}
PARTS = ("layers", "occlusion")

# Explanations that may wait for their turn. They run one at a time, so that people who look do not slow down the
# applications that ask.
MAX_WAITING = 16

Image = npt.NDArray[np.uint8]


class Inside(NamedTuple):
    """The inside of a version.

    Attributes:
        layered: runs it layer by layer.
        described: its layers with their kernels as JSON; 3 MB for mnist-mlp, which take 10 ms to write.
    """

    layered: LayeredModel
    described: bytes


class ExplainEndpoint:
    """Answers GET and POST /explain.

    Args:
        catalogue: the models.
        preparer: prepares pictures.
        bodies: reads what is sent.
        settings: whether it is switched on; limits of size and time.
    """

    def __init__(self, catalogue: Catalogue, preparer: Preparer, bodies: BodyReader, settings: Settings):
        self._catalogue, self._preparer, self._enabled = catalogue, preparer, settings.explain
        self._bodies, self._timeout_s = bodies, settings.request_timeout_s
        self._limits = Limits.of(settings)._replace(images=1)
        # At most half the queue at a time: others shall find room beside the covers.
        self._slice_images = max(settings.queue_size // 2, 1)
        self._insides: WeakKeyDictionary[Predictor, Inside] = WeakKeyDictionary()
        self._opening = asyncio.Lock()
        self._turn = asyncio.Semaphore(1)
        self._waiting = 0

    def routes(self) -> list[Route]:
        """Return the routes."""
        # One route: of two, the answer to another method would name the methods of the first alone.
        return [Route("/explain", self.answer, methods=["GET", "POST"])]

    async def answer(self, request: Request) -> Response:
        """Return what the method asks for."""
        return await (self.explain(request) if request.method == "POST" else self.describe(request))

    async def describe(self, request: Request) -> Response:
        """Return the layers of a network with their kernels."""
        predictor, _ = self._read_query(request)
        inside = await self._inside_of(predictor)
        headers = {"etag": f'"{inside.layered.sha256[:32]}"', "cache-control": "no-cache"}
        if headers["etag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(inside.described, headers=headers, media_type="application/json")

    async def explain(self, request: Request) -> Response:
        """Return the values of every layer for one picture, and what covering parts of it changes."""
        predictor, parts = self._read_query(request)
        refuse_packed(request.headers.get("content-encoding", ""))
        body = await self._bodies.read(request)
        deadline = time.monotonic() + self._timeout_s
        image = await self._read_picture(body, request.headers.get("content-type", ""), deadline)
        content: dict[str, object] = {
            "model": {"name": predictor.name, "version": predictor.version},
            "pixels": image.tolist(),
        }
        if "layers" in parts:
            content["layers"] = await self._run_layers(predictor, image, deadline)
        if "occlusion" in parts:
            content["occlusion"] = await _occlude(predictor, image, self._slice_images, deadline)
        return json_response(content)

    def _read_query(self, request: Request) -> tuple[Predictor, set[str]]:
        if not self._enabled:
            raise Unsupported("explanations are switched off here; MNIST_EXPLAIN=true switches them on")
        query = read_query(request, PARAMETERS[request.method.replace("HEAD", "GET")])
        parts = set(query.get("include", "layers").split(","))
        if wrong := parts - set(PARTS):
            raise InvalidInput(f"include: expected {' or '.join(PARTS)} or both, got {min(wrong)[:40]!r}")
        predictor = self._catalogue.get(query.get("model"), query.get("version"))
        request.scope["model"] = predictor.name
        return predictor, parts

    async def _read_picture(self, body: bytes, content_type: str, deadline: float) -> Image:
        items = await take_apart(text_bytes(body, content_type), deadline, read_items, body, content_type, self._limits)
        if not items:
            raise InvalidInput("expected one picture, got none")
        content = items[0].content
        if isinstance(content, bytes):
            (prepared,) = await self._preparer.prepare([content], deadline)
            content = prepared if isinstance(prepared, ServingError) else prepared.image
        if isinstance(content, ServingError):
            raise content
        return content

    async def _inside_of(self, predictor: Predictor) -> Inside:
        """Return the inside of a version, checked and described when it is first asked for."""
        async with self._opening:
            if predictor not in self._insides:
                self._insides[predictor] = await asyncio.to_thread(_look_inside, predictor.model)
            return self._insides[predictor]

    async def _run_layers(self, predictor: Predictor, image: Image, deadline: float) -> dict[str, object]:
        if self._waiting >= MAX_WAITING:
            raise QueueFull(f"{self._waiting} explanations wait; there is room for {MAX_WAITING}", 1.0)
        self._waiting += 1
        try:
            async with asyncio.timeout(deadline - time.monotonic()), self._turn:
                inside = await self._inside_of(predictor)
                values = await asyncio.to_thread(inside.layered.run, image)
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed before the layers were run") from None
        finally:
            self._waiting -= 1
        return {name: _tensor(value) for name, value in values.items()}


def _look_inside(model: LoadedModel) -> Inside:
    layered = LayeredModel(model.folder, model.manifest)
    content = {
        "model": {"name": model.name, "version": model.version},
        "layers": [record.model_dump() for record in layered.records],
        "kernels": {name: _tensor(kernel) for name, kernel in layered.kernels.items()},
    }
    return Inside(layered, orjson.dumps(content))


async def _occlude(predictor: Predictor, image: Image, most: int, deadline: float) -> dict[str, object]:
    """Return the probabilities with a square of paper on each pixel; no more than `most` drawings are sent at once.

    It asks the batcher, not the predictor: covered drawings would spoil what drift and metrics say of real ones.
    """
    covered, centres = cover(image)
    drawings = np.concatenate([image[np.newaxis], covered])
    slices = [drawings[start : start + most] for start in range(0, len(drawings), most)]
    probabilities = np.concatenate([(await predictor.batcher.submit(part, deadline)).probabilities for part in slices])
    uncovered = probabilities[0]
    return {
        "cover_side": COVER_SIDE,
        "probabilities": uncovered.tolist(),
        "map": _tensor(occlusion_map(uncovered, probabilities[1:], centres)),
    }


def _tensor(values: npt.NDArray[np.float32]) -> dict[str, object]:
    """Return a tensor as its shape and base64 of its float32, little-endian, row by row."""
    content = np.ascontiguousarray(values, "<f4").tobytes()
    return {"shape": list(values.shape), "data": base64.b64encode(content).decode("ascii")}
