"""Connections of an HTTP listener, within limits; ordinary predictions are answered where they arrive.

Must not know: what a request asks for.
"""

import asyncio
from functools import partial
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from serving.http.express import Express
from serving.http.guard import FREE_CHUNKS, LEAST_CHUNK_BYTES, MAX_LINES, MAX_PIPELINED, Guard
from serving.http.raw import Refused, header_lines, refuse
from serving.http.upgrades import head_without_offer, make_parser, offers_upgrade


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 connection within limits.

    Args:
        guard: of its listener.
        express: answers what is ordinary at once; None where the app answers all.
        options: uvicorn's.
    """

    def __init__(self, guard: Guard, express: Express | None, **options: Any):
        self._guard, self._express, self._options = guard, express, options
        self.loop, self.connections = asyncio.get_running_loop(), options["server_state"].connections
        self.cycle = self.parser = None  # type: ignore[assignment]
        self._held: list[bytes] | None = None
        """The body so far of a request that can perhaps be answered at once."""
        self._answered_at_once = 0
        self._defaults: object = None
        self._prefix = b""
        self._fruitless_bytes = self._chunk_bytes = 0
        self._in_head, self._fruitful = True, False
        self._refusal: tuple[int, str] | None = None
        self._answered: RequestResponseCycle | None = None
        """The request that the app is answering, or has answered last."""
        self._ended = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or refuse it if there are too many."""
        self.transport = transport
        self.connections.add(self)
        if not self._guard.admit(self):
            self._open(transport)
            self._refuse(429, "there are too many connections; try again later")

    def _open(self, transport: asyncio.Transport) -> None:
        """Make what uvicorn needs for requests; for a connection without any, it would be a third of the cost."""
        super().__init__(**self._options)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._guard.release(self)
        self.connections.discard(self)
        if self.parser:
            super().connection_lost(exc)

    def drop(self) -> None:
        """Close at once, whatever is on the way."""
        self._guard.release(self)
        self.transport.abort()

    def leave(self) -> None:
        """Close when there is nothing to do."""
        self._guard.release(self)
        self.transport.close()

    def shutdown(self) -> None:
        """Leave when the server ends and nothing is due; who may be about to ask may do so first."""
        self._guard.part(self, super().shutdown)

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
        if not self.parser:
            self._open(self.transport)
        self._chunk_bytes, self._fruitful, self._answered_at_once = len(data), False, 0
        self._unset_keepalive_if_required()
        rest = data
        while rest:
            rest = self._parse(rest)
        if self._held is not None and not self._ended:
            # The rest of the body is still on its way.
            self._let_go()
        if self._fruitful:
            self._fruitless_bytes = 0
            return
        self._fruitless_bytes += len(data)
        if self._fruitless_bytes > self._guard.max_head_bytes and not self._ended:
            self._guard.note("head_too_large")
            self._refuse(431, self._guard.too_large)

    def _parse(self, data: bytes) -> bytes:
        """Take data apart; return what is left of them, behind a head that offered another protocol."""
        parser = self.parser
        try:
            parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("")
        except httptools.HttpParserUpgrade as offer:
            if offers_upgrade(parser):
                self.parser = make_parser(self)
                return head_without_offer(parser, self.url, self.headers) + data[offer.args[0] :]
        return b""

    def on_message_begin(self) -> None:
        """Begin with a head; uvicorn learns of it when it is complete."""
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self._in_head, self._trailers, self._chunks, self._body_bytes = True, 0, 0, 0
        self._guard.wake(self)
        self._guard.waiting.setdefault(self, self.loop.time())

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; what follows a chunked body is not taken for one."""
        if self._in_head:
            super().on_header(name, value)
        else:
            self._trailers += 1
        if len(self.headers) + self._trailers > MAX_LINES:
            self._stop("head_too_large", 431, f"the head of the request has more than {MAX_LINES} lines")

    def on_chunk_header(self) -> None:
        """Count the chunks of a body."""
        if self._chunks > FREE_CHUNKS and self._chunks * LEAST_CHUNK_BYTES > self._body_bytes:
            self._stop("malformed", 400, f"more than {FREE_CHUNKS} chunks of less than {LEAST_CHUNK_BYTES} bytes each")
        self._chunks += 1

    def _stop(self, reason: str, status: int, text: str) -> None:
        self._guard.note(reason)
        self._refusal = status, text
        raise Refused

    def on_headers_complete(self) -> None:
        """Begin with the request, if its head is within the limits."""
        if offers_upgrade(self.parser):
            return
        self._guard.waiting.pop(self, None)
        self._in_head, self._fruitful = False, True
        if self._fruitless_bytes + self._chunk_bytes > self._guard.max_head_bytes:
            self._check_head()
        if [name for name, _ in self.headers].count(b"host") != 1 and self.parser.get_http_version() == "1.1":
            # RFC 9112, section 3.2
            self._stop("malformed", 400, "expected one Host header")
        if len(self.pipeline) >= MAX_PIPELINED:
            self._refusal = 429, f"more than {MAX_PIPELINED} requests were sent ahead of their answers"
            raise Refused
        if self._express and self._may_be_answered_at_once():
            self._held = []
        else:
            self._begin()

    def _may_be_answered_at_once(self) -> bool:
        parser = self.parser
        return (
            parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and not (self._answering() or self.flow.write_paused)
            and self._answered_at_once < MAX_PIPELINED
        )

    def _begin(self) -> None:
        """Have the request answered by the app."""
        url, headers, expected = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expected
        self.headers += headers
        self._guard.receiving[self] = self.loop.time()
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Have the app begin with a request."""
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def _let_go(self) -> None:
        """Have the request that was held answered by the app."""
        pieces, self._held = self._held or [], None
        self._begin()
        for piece in pieces:
            super().on_body(piece)

    def _check_head(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self._guard.max_head_bytes:
            self._stop("head_too_large", 431, self._guard.too_large)

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._fruitful = True
        self._body_bytes += len(body)
        if self._held is None:
            super().on_body(body)
        else:
            self._held.append(body)

    def on_message_complete(self) -> None:
        """Take the end of a body; what is ordinary is answered here."""
        if offers_upgrade(self.parser):
            return
        self._fruitful = True
        if self._held is not None:
            if self._answer_at_once(b"".join(self._held)):
                self._held = None
                return
            self._let_go()
        self._guard.receiving.pop(self, None)
        super().on_message_complete()

    def _answer_at_once(self, body: bytes) -> bool:
        answer = self._express.answer(self.url, self.headers, body) if self._express else None
        if answer is None or self.transport.is_closing():
            return False
        defaults = self.server_state.default_headers
        if defaults is not self._defaults:
            # uvicorn makes them anew when the date changes.
            self._defaults = defaults
            self._prefix = STATUS_LINE[200] + header_lines(defaults)
        self.transport.write(self._prefix + answer)
        self.server_state.total_requests += 1
        self._answered_at_once += 1
        self._guard.rest(self)
        return True

    def on_response_complete(self) -> None:
        """Go on to the next request, or rest."""
        super().on_response_complete()
        # uvicorn's timer for each answer; the guard has one for all.
        self._unset_keepalive_if_required()
        if self.cycle.response_complete:
            self._guard.rest(self)

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
        if self._refusal is None:
            self._guard.note("malformed")
        status, text = self._refusal or (400, "this is no valid HTTP request")
        self._refuse(status, text)

    def _refuse(self, status: int, text: str) -> None:
        """Answer and close; say nothing in the middle of another answer."""
        self._ended = True
        if self._answering():
            self._refuse_late(status, text)
        else:
            refuse(self.transport, status, text, self.server_state.default_headers)
            self._guard.linger(self, self.drop)

    def _refuse_late(self, status: int, text: str) -> None:
        """Refuse instead of all answers that are due, but let the caller wait for it.

        Whoever sends so much ahead would otherwise come again at once, and be half of what the service does.
        """
        assert self._answered is not None
        if self._answered.response_started:
            self.drop()
            return
        self.pipeline.clear()
        # To the app the caller is gone.
        self._answered.disconnected = True
        self._answered.message_event.set()
        self._guard.linger(self, partial(self._say_and_leave, status, text))

    def _say_and_leave(self, status: int, text: str) -> None:
        refuse(self.transport, status, text, self.server_state.default_headers)
        self.leave()
