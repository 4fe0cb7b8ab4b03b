"""Who is let in: the token and the number of requests of an address, before a body is read.

Must not know: what a route does.
"""

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.access import Access
from serving.errors import ServingError
from serving.http.errors import CutOff, ErrorHandlers
from serving.metrics import Metrics

# Health, for those who watch over the service, and the page, which has to ask for the token first.
OPEN = {"/livez", "/readyz", "/healthz", "/v2/health/live", "/v2/health/ready", "/", "/docs"}
OPEN_PREFIX = "/web/"

# A body of this size is on the way anyway when the refusal arrives.
SMALL_BYTES = 65_536


class Entrance:
    """Wraps an app; refuses who may not ask.

    Args:
        app: ASGI.
        access: knows the tokens, and how often an address may ask.
        metrics: told of every refusal.
    """

    def __init__(self, app: ASGIApp, access: Access, metrics: Metrics):
        self._app, self._access = app, access
        self._handlers = ErrorHandlers(metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request pass, or answer it."""
        if scope["type"] != "http" or scope["path"] in OPEN or scope["path"].startswith(OPEN_PREFIX):
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            address = request.client.host if request.client else ""
            self._access.check_caller(request.headers.get("authorization", ""), address)
        except ServingError as error:
            refusal = CutOff(error) if _has_much_to_send(request) else error
            answer = await self._handlers.on_serving_error(request, refusal)
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _has_much_to_send(request: Request) -> bool:
    length = request.headers.get("content-length", "0")
    return "transfer-encoding" in request.headers or not length.isdigit() or int(length) > SMALL_BYTES
