"""A body checked before another app sees it: its size, its time, its type, its JSON; and its answer without its name.

Must not know: what the app does.
"""

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import ServingError, UnsupportedMediaType
from serving.heavy import take_apart
from serving.http.bodies import BodyReader
from serving.http.compression import refuse_packed
from serving.http.errors import ErrorHandlers
from serving.http.strict_json import read_json
from serving.limits import Limits
from serving.metrics import Metrics


class CheckedJson:
    """Lets through to an app what it may read: a JSON body, within the limits.

    Args:
        app: ASGI; it limits nothing itself, and takes other kinds of body, pickles among them, for what they say.
        bodies: reads what is sent.
        limits: of one request.
        metrics: told of every refusal.
    """

    def __init__(self, app: ASGIApp, bodies: BodyReader, limits: Limits, metrics: Metrics):
        self._app, self._bodies, self._limits = app, bodies, limits
        self._handlers = ErrorHandlers(metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_unnamed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [pair for pair in message["headers"] if b"bentoml" not in b":".join(pair).lower()]
            await send(message)

        if scope["method"] != "POST":
            await self._app(scope, receive, send_unnamed)
            return
        request = Request(scope, receive)
        try:
            body = await self._read(request)
        except ServingError as error:
            answer = await self._handlers.on_serving_error(request, error)
            await answer(scope, receive, send)
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, replay, send_unnamed)

    async def _read(self, request: Request) -> bytes:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise UnsupportedMediaType(f"Content-Type {media_type[:80]!r}: expected application/json")
        refuse_packed(request.headers.get("content-encoding", ""))
        body = await self._bodies.read(request)
        await take_apart(len(body), read_json, body, self._limits)
        return body
