"""What every HTTP request goes through: its id, metrics, access log, and what happens when something breaks.

Must not know: what a route does.
"""

import asyncio
import logging
import time

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.catalogue import Catalogue
from serving.errors import NotReady
from serving.http.errors import error_response, json_response
from serving.logs import choose_request_id, request_id
from serving.metrics import Metrics

logger = logging.getLogger(__name__)

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

# The status that stands in metrics and logs for a caller who left before the answer, as in nginx.
CLIENT_CLOSED = 499

# The route of a request that fits none.
UNMATCHED = "unmatched"

# A request that takes longer is worth a look at whether its caller is still there.
PATIENCE_S = 0.05


class Metering:
    """Wraps the app; the first to see a request and the last to see its answer.

    Args:
        app: answers.
        catalogue: says whether the process is about to stop.
        metrics: told of every request.
        access_log: whether to log one line for each request.
    """

    def __init__(self, app: ASGIApp, catalogue: Catalogue, metrics: Metrics, access_log: bool):
        self._app, self._catalogue, self._metrics, self._access_log = app, catalogue, metrics, access_log
        self._in_progress = metrics.tallies.counter(metrics.in_progress.labels("http"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._catalogue)
        token = request_id.set(exchange.id)
        started = time.perf_counter()
        self._in_progress.note(1)
        try:
            await exchange.run(self._app)
        finally:
            self._in_progress.note(-1)
            self._note(scope, exchange.status, time.perf_counter() - started)
            request_id.reset(token)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in METHODS else "OTHER"
        route = getattr(scope.get("route"), "path", UNMATCHED)
        self._metrics.request("http", method, route, scope.get("model", ""), str(status), seconds)
        if self._access_log:
            fields = {"method": method, "path": scope["path"], "status": status, "seconds": round(seconds, 6)}
            logger.info("request", extra=fields)


class _Exchange:
    """One request and its answer."""

    __slots__ = ("_catalogue", "_left", "_receive", "_send", "_task", "_timer", "_watch", "id", "scope", "status")

    def __init__(self, scope: Scope, receive: Receive, send: Send, catalogue: Catalogue):
        self.scope, self._receive, self._send, self._catalogue = scope, receive, send, catalogue
        self.id = _request_id(scope)
        self.status = 0
        self._timer: asyncio.TimerHandle | None = None
        self._watch: asyncio.Task[None] | None = None
        self._task: asyncio.Task[object] | None = None
        self._left = False

    async def run(self, app: ASGIApp) -> None:
        self._task = asyncio.current_task()
        try:
            await app(self.scope, self.receive, self.send)
        except ClientDisconnect:
            self.status = CLIENT_CLOSED
        except asyncio.CancelledError:
            if self._task is None or not (self._left or self._catalogue.draining):
                raise
            self._task.uncancel()
            if self._left:
                self.status = CLIENT_CLOSED
            else:
                await self._answer_at_the_end()
        except Exception:
            await self._answer_failure()
        finally:
            if self._timer:
                self._timer.cancel()
            if self._watch:
                self._watch.cancel()

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            self._timer = asyncio.get_running_loop().call_later(PATIENCE_S, self._start_watch)
        return message

    def _start_watch(self) -> None:
        if not self.status:
            self._watch = asyncio.ensure_future(self._cancel_when_gone())

    async def _cancel_when_gone(self) -> None:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self.status and self._task:
            self._left = True
            self._task.cancel()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message["headers"]
            headers.append((b"x-request-id", self.id.encode()))
            if self._catalogue.draining:
                headers.append((b"connection", b"close"))
        await self._send(message)

    async def _answer_at_the_end(self) -> None:
        """Answer, if it is not too late, a request that takes longer than the server waits when it stops."""
        if not self.status:
            error = NotReady("the server stops, and this request was not done in the time that it waits")
            await error_response(error)(self.scope, self._receive, self.send)

    async def _answer_failure(self) -> None:
        logger.exception("an answer failed")
        if not self.status:
            answer = json_response({"error": f"internal error; the log knows more under request id {self.id}"}, 500)
            await answer(self.scope, self._receive, self.send)


def _request_id(scope: Scope) -> str:
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return choose_request_id(given.decode("latin-1"))
