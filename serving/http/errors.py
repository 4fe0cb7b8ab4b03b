"""Errors as HTTP answers: `{"error": "text"}`, whatever went wrong.

Must not know: what a route does.
"""

import math
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from serving.errors import ModelNotFound, ServingError, TryLater, Unauthorized
from serving.metrics import UNKNOWN, Metrics
from serving.status import http_status, reason


class BodyTimeout(ServingError):
    """The client took too long to send its body."""


class CutOff(ServingError):
    """A body that is not read to its end: the connection cannot be used again.

    Args:
        error: what is wrong with it.
    """

    def __init__(self, error: ServingError):
        super().__init__(str(error))
        self.error = error


def json_response(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a JSON answer."""
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


def error_response(error: Exception) -> Response:
    """Return the answer to an error that the caller may see."""
    headers: dict[str, str] = {}
    if isinstance(error, CutOff):
        headers["connection"] = "close"
        error = error.error
    if isinstance(error, TryLater):
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, BodyTimeout):
        return json_response({"error": str(error)}, 408, headers)
    return json_response({"error": str(error)}, http_status(error), headers)


class ErrorHandlers:
    """Answers what the routes raise, and counts it.

    Args:
        metrics: told of every refusal.
    """

    def __init__(self, metrics: Metrics):
        self._metrics = metrics

    def table(self) -> "dict[Any, Any]":
        """Return the handlers by type of exception, for Starlette."""
        return {ServingError: self.on_serving_error, HTTPException: self.on_http_error}

    async def on_serving_error(self, request: Request, error: Exception) -> Response:
        """Answer an error from our own code."""
        if isinstance(error, ModelNotFound):
            request.scope["model"] = UNKNOWN
        cause = error.error if isinstance(error, CutOff) else error
        self._metrics.rejected["body_timeout" if isinstance(cause, BodyTimeout) else reason(cause)].inc()
        return error_response(error)

    async def on_http_error(self, request: Request, error: Exception) -> Response:
        """Answer a request that fits no route, or not with this method."""
        assert isinstance(error, HTTPException)
        texts = {
            404: f"there is nothing at {request.url.path}",
            405: f"{request.method} is not allowed at {request.url.path}",
        }
        text = texts.get(error.status_code, error.detail)
        return json_response({"error": text}, error.status_code, dict(error.headers or {}))
