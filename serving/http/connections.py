"""Connections of an HTTP listener: how many there are, and what those may cost that send nothing useful.

Must not know: what a request asks for.
"""

import asyncio
import ssl
from functools import partial
from typing import Any

import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.metrics import Metrics
from serving.settings import Settings

# Requests that one connection may send ahead of their answers. A read of 256 KiB can hold 14,000, of 3 kB each in
# memory once they are taken apart.
MAX_PIPELINED = 16

# How often it is looked whether somebody's time is over.
LOOK_S = 0.5

# Longer than the idle timeout of the usual load balancers (60 s), so that they close first and no request meets a
# connection that is just being closed.
KEEP_ALIVE_S = 75

# Connections that were refused are read for this long and then closed: closed at once, they would lose the answer if
# anything of theirs is unread. There are never more than so many of them.
LINGER_S, MAX_LINGERING = 1.0, 100

# On every answer, also those to what is no HTTP. The page adds its own policy for its content.
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Refused(Exception):
    """A request whose head is not accepted; ends the parser's work."""


class Guard:
    """What the connections of one listener share.

    Args:
        settings: the limits.
        metrics: told of every refusal.
        tls: for encrypted connections, or None.
    """

    def __init__(self, settings: Settings, metrics: Metrics, tls: ssl.SSLContext | None = None):
        self._tls = tls
        self.max_connections, self.max_head_bytes = settings.max_connections, settings.max_head_bytes
        self._head_timeout_s, self._stall_timeout_s = settings.head_timeout_s, settings.body_timeout_s
        self._metrics = metrics
        self._taken: set[GuardedProtocol] = set()
        self._lingering: dict[GuardedProtocol, asyncio.TimerHandle] = {}
        self.waiting: dict[GuardedProtocol, float] = {}
        """Connections whose next head is not complete, by the time since when, the oldest first."""
        self.stalled: dict[GuardedProtocol, float] = {}
        """Connections that do not take their answer, by the time since when."""
        self._timer: asyncio.TimerHandle | None = None

    def apply(self, config: uvicorn.Config) -> None:
        """Make a server, which has not yet begun to listen, use this guard."""
        config.http_protocol_class = partial(GuardedProtocol, self)  # type: ignore[assignment]
        config.ws_protocol_class = None
        config.ssl = self._tls
        config.timeout_keep_alive = KEEP_ALIVE_S
        config.encoded_headers = [*config.encoded_headers, *SECURITY_HEADERS]

    def note(self, reason: str) -> None:
        """Count a refusal."""
        self._metrics.rejected.labels(reason).inc()

    def admit(self, protocol: "GuardedProtocol") -> bool:
        """Return whether there is room for a new connection, at the cost of one that is idle if need be."""
        if len(self._taken) >= self.max_connections:
            self.note("connections")
            if self.waiting:
                next(iter(self.waiting)).drop()
            elif not self._drop_idle():
                return False
        self._taken.add(protocol)
        self.waiting[protocol] = protocol.loop.time()
        self._watch(protocol.loop)
        return True

    def _drop_idle(self) -> bool:
        idle = [protocol for protocol in self._taken if protocol.idle_since]
        if idle:
            min(idle, key=lambda protocol: protocol.idle_since).drop()
        return bool(idle)

    def release(self, protocol: "GuardedProtocol") -> None:
        """Forget a connection that is closed, or about to be."""
        self._taken.discard(protocol)
        self.waiting.pop(protocol, None)
        self.stalled.pop(protocol, None)
        timer = self._lingering.pop(protocol, None)
        if timer:
            timer.cancel()

    def linger(self, protocol: "GuardedProtocol") -> None:
        """Close a connection that has been refused, when its caller has had time to read why."""
        self.release(protocol)
        if len(self._lingering) >= MAX_LINGERING:
            next(iter(self._lingering)).drop()
        self._lingering[protocol] = protocol.loop.call_later(LINGER_S, protocol.drop)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is None:
            self._timer = loop.call_later(LOOK_S, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for protocol, since in list(self.waiting.items()):
            if now - since < self._head_timeout_s:
                break
            protocol.time_out()
        for protocol, since in list(self.stalled.items()):
            if now - since >= self._stall_timeout_s:
                self.note("answer_timeout")
                protocol.drop()
        if self.waiting or self.stalled:
            self._watch(loop)

    def stall(self, protocol: "GuardedProtocol") -> None:
        """Begin to count the time in which a connection does not take its answer."""
        self.stalled[protocol] = protocol.loop.time()
        self._watch(protocol.loop)


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 connection within limits.

    Args:
        guard: of its listener.
        options: uvicorn's.
    """

    def __init__(self, guard: Guard, **options: Any):
        super().__init__(**options)
        self._guard = guard
        self.idle_since = 0.0
        """When the last answer was complete; 0 while there is something to do."""
        self._fruitless_bytes = self._chunk_bytes = 0
        self._in_head, self._fruitful = True, False
        self._refusal: tuple[int, str] | None = None
        self._ended = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or refuse it if there are too many."""
        super().connection_made(transport)
        if not self._guard.admit(self):
            self._refuse(429, "there are too many connections; try again later")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._guard.release(self)
        super().connection_lost(exc)

    def drop(self) -> None:
        """Close at once, whatever is on the way."""
        self._guard.release(self)
        self.transport.abort()

    def time_out(self) -> None:
        """End a connection whose head did not arrive in time."""
        self._guard.release(self)
        if self._answering():
            # The request before it is still being answered; then it ends.
            self.cycle.keep_alive = False
            return
        if not self._fruitless_bytes:
            # Nobody has asked for anything, so there is nobody to be answered.
            self.transport.close()
            return
        self._guard.note("head_timeout")
        self._refuse(408, "the head of the request did not arrive in time")

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        """Take what has arrived; count what is part of no body and completes no head."""
        if self._ended:
            return
        self._chunk_bytes, self._fruitful = len(data), False
        super().data_received(data)
        if self._fruitful:
            self._fruitless_bytes = 0
            return
        self._fruitless_bytes += len(data)
        if self._fruitless_bytes > self._guard.max_head_bytes and not self._ended:
            self._guard.note("head_too_large")
            self._refuse(431, self._too_large())

    def _too_large(self) -> str:
        return f"the head of the request is larger than the limit of {self._guard.max_head_bytes} bytes"

    def on_message_begin(self) -> None:
        """Begin with a head."""
        super().on_message_begin()
        self._in_head, self.idle_since = True, 0.0
        self._guard.waiting.setdefault(self, self.loop.time())

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; what follows a chunked body is not taken for one."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin with the request, if its head is within the limits."""
        self._guard.waiting.pop(self, None)
        self._in_head, self._fruitful = False, True
        if self._fruitless_bytes + self._chunk_bytes > self._guard.max_head_bytes:
            self._check_head()
        if len(self.pipeline) >= MAX_PIPELINED:
            self._refusal = 429, f"more than {MAX_PIPELINED} requests were sent ahead of their answers"
            raise Refused
        super().on_headers_complete()

    def _check_head(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self._guard.max_head_bytes:
            self._guard.note("head_too_large")
            self._refusal = 431, self._too_large()
            raise Refused

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._fruitful = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of a body."""
        self._fruitful = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on to the next request, or be idle."""
        super().on_response_complete()
        if self.cycle.response_complete:
            self.idle_since = self.loop.time()

    def pause_writing(self) -> None:
        """Note that the answer is not taken."""
        self._guard.stall(self)
        super().pause_writing()

    def resume_writing(self) -> None:
        """Note that the answer is taken."""
        self._guard.stalled.pop(self, None)
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  uvicorn's text is no JSON
        """Answer what the parser does not take."""
        status, text = self._refusal or (400, "this is no valid HTTP request")
        self._refuse(status, text)

    def _refuse(self, status: int, text: str) -> None:
        """Answer and close; say nothing in the middle of another answer."""
        self._ended = True
        if self._answering():
            self.drop()
            return
        body = orjson.dumps({"error": text})
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        if status == 429:
            headers.append((b"retry-after", b"1"))
        lines = [STATUS_LINE[status], *(b"%b: %b\r\n" % header for header in headers), b"\r\n", body]
        self.transport.write(b"".join(lines))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._guard.linger(self)
