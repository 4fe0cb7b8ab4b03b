"""GET /openapi.json: the HTTP interface as OpenAPI 3.1, with examples that this very instance has answered.

Must not know: how a route works; it asks them.
"""

import base64
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import cv2
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message

from serving.catalogue import Catalogue
from serving.errors import ServingError
from serving.http.errors import json_response
from serving.predictor import Predictor
from serving.status import http_status

Json = dict[str, Any]

# The golden digit that the examples send; any would do.
EXAMPLE_LABEL = 7


@dataclass(frozen=True)
class Operation:
    """One operation of the interface, and the request that its example makes."""

    method: str
    path: str
    tag: str
    summary: str
    description: str = ""
    query: tuple[tuple[str, str, str], ...] = ()
    """Name, meaning and example value of each parameter; a value of "" is left out of the example."""
    body: Any = None
    media_types: tuple[str, ...] = ()
    """What else the body may be, beside JSON."""
    errors: dict[int, str] = field(default_factory=dict)
    example_path: str | None = None


MODEL = ("model", "name of a model; by default the default model", "")
VERSION = ("version", "version of the model; by default the largest", "")
ERRORS = {
    400: "The request is malformed.",
    404: "No such model or version.",
    408: "The body came too slowly.",
    413: "The body, a picture or the batch is over a limit.",
    415: "The body is of a kind, or packed in a way, that is not read.",
    422: "The picture cannot be read, or the file of the layers is not what was published.",
    429: "Too much is waiting; try again after Retry-After seconds.",
    501: "Not offered: a part of the protocol, explanations that are switched off, layers that were not published.",
    503: "Not ready, or stopping.",
    504: "Not answered in time.",
}
PICTURE_TYPES = ("application/octet-stream", "image/png", "image/jpeg", "multipart/form-data")


def _errors(*statuses: int) -> dict[int, str]:
    return {status: ERRORS[status] for status in statuses}


def operations(png_base64: str, pixels: list[int], model: str) -> list[Operation]:
    """Return the operations, their examples about one picture.

    Args:
        png_base64: the picture as a PNG file, in base64.
        pixels: the same, 784 integers, 0 = paper, 255 = ink.
        model: a model that is served.
    """
    infer = {"inputs": [{"name": "images", "shape": [1, 28, 28], "datatype": "UINT8", "data": pixels}]}
    return [
        Operation(
            "post",
            "/predict",
            "Pictures",
            "Read the digit in a picture",
            "The body is a picture (PNG, JPEG, GIF, BMP, TIFF, WebP), a form with one or more files, or JSON: "
            '{"images": [base64, ...]} or {"pixels": 28 rows of 28 integers, 0 = paper, 255 = ink}. The content '
            "decides what it is. A picture that cannot be read has an `error` in its place.",
            (MODEL, VERSION, ("include", "`input` adds the 28x28 picture that the network saw", "input")),
            {"images": [png_base64]},
            PICTURE_TYPES,
            errors=_errors(400, 404, 408, 413, 415, 422, 429, 503, 504),
        ),
        Operation(
            "get",
            "/explain",
            "Explanation",
            "Describe the layers of a network, with its kernels",
            "Tensors are a shape and base64 of float32, little-endian. 501 where explanations are switched off.",
            (MODEL, VERSION),
            errors=_errors(400, 404, 422, 501, 503),
        ),
        Operation(
            "post",
            "/explain",
            "Explanation",
            "Show what a network makes of one picture",
            "The body is as for /predict, with one picture. `layers` gives the values of every layer, `occlusion` the "
            "probabilities with a square of paper on each pixel.",
            (MODEL, VERSION, ("include", "`layers`, `occlusion`, or both with a comma between", "occlusion")),
            {"images": [png_base64]},
            PICTURE_TYPES,
            errors=_errors(400, 404, 408, 413, 422, 429, 501, 503, 504),
        ),
        Operation("get", "/models", "Models", "List the models that are served"),
        Operation("get", "/v2", "Open Inference Protocol v2", "Describe the server"),
        Operation(
            "get",
            "/v2/models/{model}",
            "Open Inference Protocol v2",
            "Describe a model",
            errors=_errors(404, 503),
            example_path=f"/v2/models/{model}",
        ),
        Operation(
            "post",
            "/v2/models/{model}/infer",
            "Open Inference Protocol v2",
            "Classify images of 28x28 pixels",
            "UINT8 pixels, 0 = paper, 255 = ink. Normalisation is part of the model. Tensors may also be sent raw, by "
            "the binary tensor data extension, and the same calls are there over gRPC.",
            body=infer,
            errors=_errors(400, 404, 408, 413, 415, 429, 501, 503, 504),
            example_path=f"/v2/models/{model}/infer",
        ),
        Operation(
            "post",
            "/v2/repository/index",
            "Open Inference Protocol v2",
            "List every version and its state",
            errors=_errors(400, 408, 413, 415),
        ),
        Operation("get", "/livez", "Health", "Say that the process lives"),
        Operation("get", "/readyz", "Health", "Say whether requests should be sent here", errors=_errors(503)),
    ]


class OpenApiEndpoint:
    """Answers GET /openapi.json; made once for each version of the default model.

    Args:
        catalogue: the models.
        routes: answers the examples.
    """

    def __init__(self, catalogue: Catalogue, routes: ASGIApp):
        self._catalogue, self._routes = catalogue, routes
        self._made: tuple[Predictor, Json] | None = None

    def routes(self) -> list[Route]:
        """Return the route."""
        return [Route("/openapi.json", self.show, methods=["GET"])]

    async def show(self, _: Request) -> Response:
        """Return the document."""
        predictor = self._catalogue.get()
        if self._made is None or self._made[0] is not predictor:
            self._made = predictor, await self._make(predictor)
        return json_response(self._made[1], headers={"cache-control": "no-cache"})

    async def _make(self, predictor: Predictor) -> Json:
        golden = predictor.manifest.golden
        image = next((digit for digit in golden if digit.label == EXAMPLE_LABEL), golden[0]).image()
        png = base64.b64encode(cv2.imencode(".png", image)[1].tobytes()).decode("ascii")
        paths: dict[str, Json] = {}
        offered = {getattr(route, "path", "") for route in getattr(self._routes, "routes", ())}
        for operation in operations(png, image.ravel().tolist(), predictor.name):
            if operation.path not in offered:
                continue
            answer = await _ask(self._routes, operation)
            paths.setdefault(operation.path, {})[operation.method] = _describe(operation, answer)
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "mnist-reader",
                "version": _version(),
                "description": "Reads handwritten digits. Every example here was answered by this instance.",
            },
            "paths": paths,
            "components": {"schemas": {"Error": ERROR_SCHEMA, "Predictions": PREDICTIONS_SCHEMA}},
        }


ERROR_SCHEMA = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}

# Of /predict where nothing could be read: the error of each picture is in its place.
PREDICTIONS_SCHEMA = {
    "type": "object",
    "required": ["model", "predictions"],
    "properties": {"model": {"type": "object"}, "predictions": {"type": "array", "items": {"type": "object"}}},
}


def _version() -> str:
    try:
        return version("mnist-reader")
    except PackageNotFoundError:
        return "0"


async def _ask(routes: ASGIApp, operation: Operation) -> tuple[int, Any]:
    """Return the status and the content that an operation's example gets."""
    body = b"" if operation.body is None else orjson.dumps(operation.body)
    query = "&".join(f"{name}={value}" for name, _, value in operation.query if value)
    path = operation.example_path or operation.path
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": operation.method.upper(),
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": headers,
        "root_path": "",
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    try:
        await routes(scope, receive, send)
    except ServingError as error:
        return http_status(error), {"error": str(error)}
    return sent[0]["status"], orjson.loads(b"".join(message.get("body", b"") for message in sent[1:]))


def _describe(operation: Operation, answer: tuple[int, Any]) -> Json:
    status, content = answer
    described: Json = {
        "tags": [operation.tag],
        "summary": operation.summary,
        "operationId": f"{operation.method} {operation.path}",
        "parameters": _parameters(operation),
        "responses": {str(status): _response("The answer.", {"example": _shorten(content)})},
    }
    if operation.description:
        described["description"] = operation.description
    if operation.body is not None:
        described["requestBody"] = _request_body(operation)
    for code, text in operation.errors.items():
        names = ["Error", "Predictions"] if operation.path == "/predict" and code in (413, 422, 503) else ["Error"]
        schemas = [{"$ref": f"#/components/schemas/{name}"} for name in names]
        schema = {"anyOf": schemas} if len(schemas) > 1 else schemas[0]
        described["responses"].setdefault(str(code), _response(text, {"schema": schema}))
    return described


def _response(text: str, content: Json) -> Json:
    return {"description": text, "content": {"application/json": content}}


def _parameters(operation: Operation) -> list[Json]:
    parameters: list[Json] = []
    if "{model}" in operation.path:
        name = (operation.example_path or "").split("/")[3]
        parameters.append(
            {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}, "example": name}
        )
    for name, meaning, value in operation.query:
        parameter = {"name": name, "in": "query", "description": meaning, "schema": {"type": "string"}}
        parameters.append(parameter | ({"example": value} if value else {}))
    return parameters


def _request_body(operation: Operation) -> Json:
    content: Json = {"application/json": {"example": operation.body}}
    binary = {"schema": {"type": "string", "format": "binary"}}
    files = {"schema": {"type": "object", "additionalProperties": {"type": "string", "format": "binary"}}}
    content |= {kind: files if kind.startswith("multipart") else binary for kind in operation.media_types}
    return {"required": True, "content": content}


# Longer texts and lists in answers are cut: a kernel in base64 explains nothing.
MOST_CHARACTERS, MOST_ITEMS = 400, 28


def _shorten(content: Any) -> Any:
    """Cut long texts and lists of an answer, visibly."""
    if isinstance(content, dict):
        return {key: _shorten(value) for key, value in content.items()}
    if isinstance(content, list):
        shown = [_shorten(value) for value in content[:MOST_ITEMS]]
        return shown if len(content) <= MOST_ITEMS else [*shown, f"... {len(content) - MOST_ITEMS} more"]
    if isinstance(content, str) and len(content) > MOST_CHARACTERS:
        return f"{content[:MOST_CHARACTERS]}... {len(content) - MOST_CHARACTERS} more characters"
    return content
