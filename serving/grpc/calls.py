"""What every gRPC call goes through: its request id, metrics, access log, and its errors as a status.

Must not know: what a call does.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError

from serving.errors import InvalidInput, ModelNotFound, NotReady, QueueFull, ServingError, TryLater, forget_frames
from serving.grpc.core_call import Context
from serving.heavy import PIECE_BYTES, here_or_alone
from serving.logs import choose_request_id, request_id
from serving.metrics import UNKNOWN, Metrics
from serving.status import grpc_status, reason

logger = logging.getLogger(__name__)

Method = Callable[[Any, "Call"], Awaitable[Any]]
Read = Callable[[bytes], Any]
Check = Callable[["Call"], None]


class Call:
    """One call.

    Attributes:
        context: gRPC's.
        deadline: monotonic seconds: the caller's, or `timeout_s` from now.
        id: the caller's own request id, or a new one.
        model: the model that answers, once it is known, for the metrics.
    """

    __slots__ = ("context", "deadline", "id", "model")

    def __init__(self, context: Context, timeout_s: float):
        self.context, self.model = context, ""
        remaining_s = context.time_remaining()
        self.deadline = time.monotonic() + (timeout_s if remaining_s is None else min(remaining_s, timeout_s))
        self.id = choose_request_id(self.metadata("x-request-id"))

    def metadata(self, name: str) -> str:
        """Return the first value of what the caller sent under `name`, or nothing."""
        for key, value in self.context.invocation_metadata() or ():
            if key == name and isinstance(value, str):
                return value
        return ""

    @property
    def address(self) -> str:
        """The caller's IP address."""
        return address_of(self.context.peer())


def address_of(peer: str) -> str:
    """Return the IP address in gRPC's name of a caller, such as ipv4:192.0.2.1:5000 or ipv6:%5B2001:db8::1%5D:5000."""
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")


class Gate:
    """Whether calls are let in; one that is refused may be sent to another instance.

    Args:
        max_bytes: messages that may be inside at once.

    Attributes:
        closed: no call is let in.
        inside: how many calls are being answered.
    """

    def __init__(self, max_bytes: int):
        self._max_bytes, self._bytes = max_bytes, 0
        self.closed, self.inside = False, 0

    @contextmanager
    def admit(self, size_bytes: int) -> Iterator[None]:
        """Let a call with a message of this size in.

        Raises:
            NotReady: the gate is closed.
            QueueFull: there is no room for the message.
        """
        if self.closed:
            raise NotReady("the server is stopping")
        if self._bytes + size_bytes > self._max_bytes:
            raise QueueFull(f"messages of {self._bytes} bytes are being worked on; try again later", 1.0)
        self.inside += 1
        self._bytes += size_bytes
        try:
            yield
        finally:
            self.inside -= 1
            self._bytes -= size_bytes


class Metered:
    """A method that is metered, and whose errors become a status.

    Args:
        name: of the method.
        read: makes a message of bytes; left to gRPC, what is none would be UNKNOWN, uncounted, and fill the log.
        method: answers.
        metrics: told of every call.
        access_log: whether to log one line for each call.
        gate: lets calls in.
        check: raises ServingError where the caller may not be answered, before anything is read; None for everybody.
        timeout_s: longest that a call may take.
    """

    def __init__(
        self,
        name: str,
        read: Read,
        method: Method,
        metrics: Metrics,
        access_log: bool,
        gate: Gate,
        check: Check | None,
        timeout_s: float,
    ):
        self._name, self._read, self._method, self._check = name, read, method, check
        self._metrics, self._access_log = metrics, access_log
        self._gate, self._timeout_s = gate, timeout_s
        self._in_progress = metrics.tallies.counter(metrics.in_progress.labels("grpc"))

    async def run(self, request: bytes, context: Context) -> Any:
        """Answer one call."""
        call = Call(context, self._timeout_s)
        context.set_trailing_metadata((("x-request-id", call.id),))
        token = request_id.set(call.id)
        started = time.perf_counter()
        self._in_progress.note(1)
        status = "OK"
        try:
            with self._gate.admit(len(request)):
                if self._check:
                    self._check(call)
                return await self._method(await self._parse(request, call.deadline), call)
        except ServingError as error:
            status = grpc_status(error)
            # gRPC keeps what an abort raises, and so this frame, until the next garbage collection.
            request = b""
            await self._refuse(forget_frames(error), status, call)
        except asyncio.CancelledError:
            status = "CANCELLED"
            raise
        except Exception:
            status = "INTERNAL"
            logger.exception("an answer failed")
            request = b""
            text = f"internal error; the log knows more under request id {call.id}"
            await context.abort(grpc.StatusCode.INTERNAL, text)
        finally:
            self._in_progress.note(-1)
            self._note(call, status, time.perf_counter() - started)
            request_id.reset(token)

    async def _parse(self, request: bytes, deadline: float) -> Any:
        try:
            return await here_or_alone(len(request), PIECE_BYTES, partial(self._read, request), deadline)
        except DecodeError as error:
            raise InvalidInput(f"{len(request)} bytes that are no message of {self._name}") from error

    async def _refuse(self, error: ServingError, status: str, call: Call) -> None:
        if isinstance(error, ModelNotFound):
            call.model = UNKNOWN
        self._metrics.rejected[reason(error)].inc()
        trailing = [("x-request-id", call.id)]
        if isinstance(error, TryLater):
            trailing.append(("retry-after", str(math.ceil(error.retry_after_s))))
        await call.context.abort(grpc.StatusCode[status], str(error), tuple(trailing))

    def _note(self, call: Call, status: str, seconds: float) -> None:
        self._metrics.request("grpc", "", self._name, call.model, status, seconds)
        if self._access_log:
            logger.info("request", extra={"call": self._name, "status": status, "seconds": round(seconds, 6)})
