"""CoreServer: gRPC's C core driven by one thread of ours, which answers what is ordinary itself.

`grpc.aio` hands every step of a call from its poller to the event loop through a socket: 250 us of processor time for
a call, where the core alone takes 95 (a bare server of each, grpcio 1.85). What is not ordinary runs on the event loop,
as with `grpc.aio`, by the same handlers. cygrpc is grpcio's own layer, not its public one; its release is pinned.
Must not know: what a call does.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import grpc
from grpc._cython import cygrpc

from serving.grpc.core_call import CoreCall, Express, Metadata

logger = logging.getLogger(__name__)

# Calls that the core may hand over before it is asked for more.
ACCEPTING = 32

# How often it is looked, where nothing else happens, whether a message is late.
LOOK_S = 0.5


class Limits(NamedTuple):
    """How many calls a server holds, and for how long.

    Attributes:
        calls: that are answered at once; more are refused.
        awaited: that send their message at once; then the one that has been doing so for the longest gives way.
        streams: that are open at once, such as watches of the health; more are refused.
        message_s: longest that a call may take to send its message.
    """

    calls: int
    awaited: int
    streams: int
    message_s: float


class CoreServer:
    """A gRPC server.

    Args:
        options: gRPC's channel arguments.
        limits: of its calls.
        express: by the name of a method, who answers its ordinary calls, in the thread of this server.
        refused: told, in that thread, why a call was refused before its handler: "calls", "body_timeout" or "invalid".
    """

    def __init__(
        self,
        options: Sequence[tuple[str, int]],
        limits: Limits,
        express: dict[str, Express],
        refused: Callable[[str], None],
    ):
        self._queue = cygrpc.CompletionQueue()
        self._server = cygrpc.Server(tuple(options), False)
        self._server.register_completion_queue(self._queue)
        self._limits, self._express, self.refused = limits, express, refused
        self._generic: list[grpc.GenericRpcHandler] = []
        self._awaited: dict[CoreCall, float] = {}  # calls whose message is not complete, the oldest first; since when
        self._calls: set[CoreCall] = set()
        self._streams: set[CoreCall] = set()
        self._stopped = False
        self._thread = threading.Thread(target=self._drive, name="grpc", daemon=True)
        self.loop: asyncio.AbstractEventLoop | None = None
        self.busy_since: float | None = None
        """When the thread began to answer a call, monotonic; None while it waits."""

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Answer the calls that these know."""
        self._generic += handlers

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """Do nothing: the generated code that calls this adds the same as generic handlers."""

    def add_port(self, address: str, credentials: grpc.ServerCredentials | None) -> None:
        """Listen on an address, encrypted where there are credentials.

        Raises:
            OSError: the address is taken or not ours.
        """
        secure = (credentials._credentials,) if credentials else ()
        try:
            bound = self._server.add_http2_port(address.encode(), *secure)
        except RuntimeError:
            bound = 0
        if not bound:
            raise OSError(f"gRPC cannot listen on {address}")

    def start(self) -> None:
        """Answer calls; the running event loop answers what is not ordinary."""
        self.loop = asyncio.get_running_loop()
        self._server.start()
        for _ in range(ACCEPTING):
            self._server.request_call(self._queue, self._queue, self._accept)
        self._thread.start()

    async def stop(self) -> None:
        """Take no more calls, cancel those that run, and return when everything is closed."""
        if self._thread.is_alive():
            self._server.shutdown(self._queue, self._close)
            self._server.cancel_all_calls()
            await asyncio.to_thread(self._thread.join)
            self._server.destroy()

    def _close(self, _: Any) -> None:
        """Close the queue on the event loop, which may be about to send; this thread sends nothing from here on."""
        self._stopped = True
        try:
            assert self.loop
            self.loop.call_soon_threadsafe(self._queue.shutdown)
        except RuntimeError:  # it is closed, and sends nothing either
            self._queue.shutdown()

    def send(self, call: Any, operations: tuple[Any, ...], tag: Callable[[Any], None]) -> bool:
        """Have the core do something for one of its calls; return False where everything is closed.

        Whoever gives a closed queue something to do ends the process. A lock instead cost 7 % of a call's time.
        """
        if self._stopped:
            return False
        call.start_server_batch(operations, tag)
        return True

    def _drive(self) -> None:
        """Take what the core has done, one event after the other; each one's tag is the function that it is for."""
        while True:
            event = self._queue.poll(time.time() + LOOK_S if self._awaited else None)
            if event.completion_type == cygrpc.CompletionType.queue_shutdown:
                return
            self.busy_since = time.monotonic()
            try:
                if event.completion_type != cygrpc.CompletionType.queue_timeout:
                    event.tag(event)
                self._end_late()
            except Exception:
                logger.exception("a gRPC event could not be handled")
            self.busy_since = None

    def _accept(self, event: Any) -> None:
        """Take a new call, and ask for the next."""
        if not event.success or self._stopped:
            return
        self._server.request_call(self._queue, self._queue, self._accept)
        # Whatever bytes a stranger sends: no method has such a name.
        method = event.call_details.method.decode(errors="replace")
        call = CoreCall(self, event, method)
        handler = self._find(method, event)
        if handler is None:
            call.refuse(cygrpc.StatusCode.unimplemented, "there is no such method")
        else:
            call.begin(handler, self._express.get(method))

    def _find(self, method: str, event: Any) -> Any:
        details = _Details(method, event.invocation_metadata)
        return next((found for each in self._generic if (found := each.service(details))), None)

    def expect(self, call: CoreCall) -> None:
        """Note that the message of a call is on its way."""
        if len(self._awaited) >= self._limits.awaited:
            oldest = next(iter(self._awaited))
            del self._awaited[oldest]
            self._give_up(oldest)
        self._awaited[call] = time.monotonic()

    def arrived(self, call: CoreCall) -> bool:
        """Return whether the message of a call was still awaited, which it then is no longer."""
        return self._awaited.pop(call, None) is not None

    def _end_late(self) -> None:
        late = time.monotonic() - self._limits.message_s
        while self._awaited:
            call, since = next(iter(self._awaited.items()))
            if since > late:
                return
            del self._awaited[call]
            self.refused("body_timeout")
            text = f"the message was not there within {self._limits.message_s:g} s"
            call.refuse(cygrpc.StatusCode.deadline_exceeded, text)

    def _give_up(self, call: CoreCall) -> None:
        self.refused("calls")
        call.refuse(cygrpc.StatusCode.resource_exhausted, "too many calls at once; try again later")

    def admit(self, call: CoreCall) -> bool:
        """Note that a call is about to be answered; return False, and refuse it, where there is no room."""
        taken, most = (self._streams, self._limits.streams) if call.stream else (self._calls, self._limits.calls)
        if len(taken) >= most:
            self._give_up(call)
            return False
        taken.add(call)
        return True

    def callers(self) -> set[int]:
        """Return the ports from which the calls come that are here."""
        return {call.context.port() for call in (*self._awaited, *self._calls, *self._streams)}

    def forget(self, call: CoreCall) -> None:
        """Note that a call is over."""
        (self._streams if call.stream else self._calls).discard(call)


class _Details(NamedTuple):
    """What handlers are found by; `grpc.HandlerCallDetails`."""

    method: str
    invocation_metadata: Metadata
