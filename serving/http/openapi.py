"""GET /openapi.json: the HTTP interface as OpenAPI 3.1, with examples that this very instance has answered.

Must not know: how a route works; it asks them.
"""

import asyncio
import base64
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import cv2
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message

from serving.access import Access
from serving.catalogue import Catalogue
from serving.errors import ServingError
from serving.http.entrance import OPEN
from serving.http.errors import json_response
from serving.http.operations import ERRORS, Operation, operations
from serving.http.schemas import SCHEMAS, Json, reference
from serving.predictor import Predictor
from serving.status import http_status

# The golden digit that the examples send; any would do.
EXAMPLE_LABEL = 7

OK = 200

# What this instance does not offer now, it does not offer later.
NOT_OFFERED = 501


class OpenApiEndpoint:
    """Answers GET /openapi.json; made once for each version of the default model if every example was answered.

    Args:
        catalogue: the models.
        routes: answers the examples.
        access: knows whether callers need a token.
        rate_limited: an address may not ask as often as it likes.
    """

    def __init__(self, catalogue: Catalogue, routes: ASGIApp, access: Access, *, rate_limited: bool):
        self._catalogue, self._routes, self._restricted = catalogue, routes, access.restricted
        refusals = {401: self._restricted, 429: rate_limited}
        self._refusals = {status: ERRORS[status] for status, possible in refusals.items() if possible}
        self._made: tuple[Predictor, Json] | None = None
        self._making = asyncio.Lock()

    def routes(self) -> list[Route]:
        """Return the route."""
        return [Route("/openapi.json", self.show, methods=["GET"])]

    async def show(self, _: Request) -> Response:
        """Return the document."""
        async with self._making:
            predictor = self._catalogue.get()
            if self._made is None or self._made[0] is not predictor:
                document, lasting = await self._make(predictor)
                self._made = (predictor, document) if lasting else None
            else:
                document = self._made[1]
        return json_response(document, headers={"cache-control": "no-cache"})

    async def _make(self, predictor: Predictor) -> tuple[Json, bool]:
        """Return the document, and whether it would be the same at another time: no example was refused for a while."""
        golden = predictor.manifest.golden
        image = next((digit for digit in golden if digit.label == EXAMPLE_LABEL), golden[0]).image()
        png = base64.b64encode(cv2.imencode(".png", image)[1].tobytes()).decode("ascii")
        paths: dict[str, Json] = {}
        lasting = True
        offered = {getattr(route, "path", "") for route in getattr(self._routes, "routes", ())}
        for operation in operations(png, image.ravel().tolist(), predictor.name):
            if operation.path not in offered:
                continue
            answer = await _ask(self._routes, operation)
            lasting &= answer[0] < 400 or answer[0] == NOT_OFFERED
            paths.setdefault(operation.path, {})[operation.method] = self._describe(operation, answer)
        components: Json = {"schemas": SCHEMAS}
        if self._restricted:
            components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        document: Json = {
            "openapi": "3.1.0",
            "info": {
                "title": "mnist-reader",
                "version": _version(),
                "description": "Reads handwritten digits. Every example here was answered by this instance.",
            },
            "paths": paths,
            "components": components,
        }
        return document, lasting

    def _describe(self, operation: Operation, answer: tuple[int, Any]) -> Json:
        """Return an operation with what it may answer, the refusals at the entrance included."""
        if operation.path in OPEN:
            return _describe(operation, answer)
        described = _describe(replace(operation, errors=operation.errors | self._refusals), answer)
        return described | ({"security": [{"bearer": []}]} if self._restricted else {})


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
    shown: Json = {"example": _shorten(content)}
    if status == OK:
        shown["schema"] = reference(operation.gives)
    described: Json = {
        "tags": [operation.tag],
        "summary": operation.summary,
        "operationId": f"{operation.method} {operation.path}",
        "parameters": _parameters(operation),
        "responses": {str(status): _response(ERRORS.get(status, "The answer."), shown)},
    }
    if operation.description:
        described["description"] = operation.description
    if operation.body is not None:
        described["requestBody"] = _request_body(operation)
    for code, text in operation.errors.items():
        described["responses"].setdefault(str(code), _response(text, {"schema": _refusal(operation, code)}))
    return described


def _refusal(operation: Operation, status: int) -> Json:
    """Return the schema of an answer that is no success."""
    if operation.path == "/readyz":
        return reference(operation.gives)
    if operation.path == "/predict" and status in (413, 422, 503):
        # Where nothing could be read, the error of each picture is in its place.
        return {"anyOf": [reference("Error"), reference("Predictions")]}
    return reference("Error")


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
    content: Json = {"application/json": {"example": operation.body, "schema": reference(operation.takes)}}
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
