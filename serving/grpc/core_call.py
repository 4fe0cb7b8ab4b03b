"""One call of gRPC's C core, from its head to its status, and what a handler may ask of it.

Must not know: what a call does.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc._cython import cygrpc

from serving.grpc.questions import NO_QUESTION, reader

logger = logging.getLogger(__name__)

# The core gives a call without a deadline one in the far future; nobody waits for three years.
NEVER_S = 1e8

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]


class Answer(NamedTuple):
    """What an ordinary call gets: its message, and metadata behind it."""

    message: bytes
    trailing: Metadata


# Message, metadata and the seconds that are left (None for any) to the answer; None where the event loop is to answer.
Express = Callable[[bytes, Metadata, float | None], Answer | None]


class Aborted(Exception):
    """Ends a handler whose call has been given a status."""


class Context:
    """What a handler may ask of its call, and tell it; a part of `grpc.aio.ServicerContext`.

    Args:
        call: the core's.
        details: the core's, with method and deadline.
        metadata: that the caller sent.
    """

    __slots__ = ("_call", "_details", "_metadata", "details", "status", "trailing")

    def __init__(self, call: Any, details: Any, metadata: Metadata):
        self._call, self._details, self._metadata = call, details, metadata
        self.status, self.details = cygrpc.StatusCode.ok, ""
        self.trailing: Metadata = ()

    def invocation_metadata(self) -> Metadata:
        """Return what the caller sent."""
        return self._metadata

    def set_trailing_metadata(self, trailing: Metadata) -> None:
        """Send this behind the answer."""
        self.trailing = trailing

    def peer(self) -> str:
        """Return gRPC's name of the caller's address."""
        peer: bytes = self._call.peer()
        return peer.decode()

    def port(self) -> int:
        """Return the port of the caller."""
        return int(self.peer().rpartition(":")[2])

    def time_remaining(self) -> float | None:
        """Return the seconds until the caller's deadline, None where it has none."""
        remaining_s: float = self._details.deadline - time.time()
        return None if remaining_s > NEVER_S else max(remaining_s, 0.0)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing: Metadata = ()) -> None:
        """End the call with a status.

        Raises:
            Aborted: always.
        """
        self.status, self.details = code.value[0], details
        self.trailing = trailing or self.trailing
        raise Aborted


class Server(Protocol):
    """Whose call it is."""

    loop: asyncio.AbstractEventLoop | None
    refused: Callable[[str], None]

    def send(self, call: Any, operations: tuple[Any, ...], tag: Callable[[Any], None]) -> bool:
        """Have the core do something for one of its calls; return False where everything is closed."""

    def expect(self, call: "CoreCall") -> None:
        """Note that the message of a call is on its way."""

    def arrived(self, call: "CoreCall") -> bool:
        """Return whether the message of a call was still awaited, which it then is no longer."""

    def admit(self, call: "CoreCall") -> bool:
        """Note that a call is about to be answered; return False, and refuse it, where there is no room."""

    def forget(self, call: "CoreCall") -> None:
        """Note that a call is over."""


class CoreCall:
    """One call from its head to its status.

    Methods named `on_...` run in the server's thread, `_run` and what it calls on the event loop.
    """

    def __init__(self, server: Server, event: Any, method: str):
        self._server, self._call, self.method = server, event.call, method
        self.context = Context(event.call, event.call_details, event.invocation_metadata)
        self._handler: Any = None
        self._express: Express | None = None
        self._begun = False

    @property
    def stream(self) -> bool:
        """Whether the call stays open for more than one message."""
        return bool(self._handler.request_streaming or self._handler.response_streaming)

    def refuse(self, code: Any, details: str) -> None:
        """End a call that is not answered."""
        self.context.status, self.context.details = code, details
        self._send(self._start_and_status(), self._on_done)

    def begin(self, handler: Any, express: Express | None) -> None:
        """Wait for the message of a call."""
        self._handler, self._express = handler, express
        if handler.request_streaming:
            self._hand_over(None)
        else:
            self._server.expect(self)
            self._send((cygrpc.ReceiveMessageOperation(0),), self._on_message)

    def _send(self, operations: tuple[Any, ...], tag: Callable[[Any], None]) -> bool:
        return self._server.send(self._call, operations, tag)

    def _start_and_status(self, *message: Any) -> tuple[Any, ...]:
        return (
            cygrpc.SendInitialMetadataOperation((), 0),
            *message,
            self._status(),
            cygrpc.ReceiveCloseOnServerOperation(0),
        )

    def _status(self) -> Any:
        context = self.context
        return cygrpc.SendStatusFromServerOperation(
            tuple(context.trailing), context.status, context.details.encode(), 0
        )

    def _on_done(self, _: Any) -> None:
        """Do nothing: the call is over."""

    def _on_message(self, event: Any) -> None:
        data = event.batch_operations[0].message()
        if not self._server.arrived(self) or not event.success:
            # It has been refused meanwhile; or its message was too large, which the core tells.
            return
        if data is None:
            # Its caller has gone, or sends no message; which of the two, the core says when the status is sent.
            self.context.status, self.context.details = cygrpc.StatusCode.invalid_argument, "the call has no message"
            self._send(self._start_and_status(), self._on_no_message)
            return
        try:
            answer = self._ask_express(data)
        except Exception:
            logger.exception("a gRPC call failed")
            self.refuse(cygrpc.StatusCode.internal, "internal error")
            return
        if answer is None:
            self._hand_over(data)
            return
        self.context.trailing = answer.trailing
        self._send(self._start_and_status(cygrpc.SendMessageOperation(answer.message, 0)), self._on_done)

    def _on_no_message(self, event: Any) -> None:
        if not event.batch_operations[-1].cancelled():
            self._server.refused("invalid")

    def _ask_express(self, data: bytes) -> Answer | None:
        context = self.context
        return self._express(data, context.invocation_metadata(), context.time_remaining()) if self._express else None

    def _hand_over(self, data: bytes | None) -> None:
        """Let the event loop answer."""
        if self._server.admit(self):
            self._on_loop(self._start, data)

    def _on_loop(self, function: Callable[..., object], *arguments: Any) -> None:
        loop = self._server.loop
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is to be answered any more
            if loop:
                loop.call_soon_threadsafe(function, *arguments)

    def _start(self, data: bytes | None) -> None:
        """Answer, and learn when the caller leaves.

        The latter is asked for when the task's first step is queued already: a task that is cancelled before it never
        runs, and the call would be neither counted nor forgotten.
        """
        task = asyncio.ensure_future(self._run(data))
        self._send((cygrpc.ReceiveCloseOnServerOperation(0),), partial(self._on_close, task))

    def _on_close(self, task: asyncio.Task[None], event: Any) -> None:
        if event.batch_operations[0].cancelled():
            self._on_loop(task.cancel)

    async def _run(self, data: bytes | None) -> None:
        try:
            await self._answer(data)
        except asyncio.CancelledError:
            # The caller has gone, and is told nothing.
            pass
        except DecodeError:
            self.context.status, self.context.details = cygrpc.StatusCode.invalid_argument, NO_QUESTION
            await self._finish()
        except Exception:
            logger.exception("a gRPC call failed")
            self.context.status, self.context.details = cygrpc.StatusCode.internal, "internal error"
            await self._finish()
        finally:
            self._server.forget(self)

    async def _answer(self, data: bytes | None) -> None:
        handler, context = self._handler, self.context
        read = reader(handler.request_deserializer)
        request = self._messages(read) if handler.request_streaming else read(data)
        del data
        try:
            if handler.response_streaming:
                run = handler.stream_stream if handler.request_streaming else handler.unary_stream
                await self._stream(run(request, context))
                return
            message = handler.response_serializer(await handler.unary_unary(request, context))
        except Aborted:
            await self._finish()
            return
        del request
        await self._finish(cygrpc.SendMessageOperation(message, 0))

    async def _finish(self, *message: Any) -> None:
        """Send the last message, if there is one, and the status."""
        # Before the caller knows, who may ask again at once.
        self._server.forget(self)
        head = () if self._begun else (cygrpc.SendInitialMetadataOperation((), 0),)
        await self._batch(*head, *message, self._status())

    async def _stream(self, answers: AsyncGenerator[Any, None]) -> None:
        await self._batch(cygrpc.SendInitialMetadataOperation((), 0))
        self._begun = True
        with contextlib.suppress(Aborted):
            async with contextlib.aclosing(answers) as given:
                async for answer in given:
                    await self._batch(cygrpc.SendMessageOperation(self._handler.response_serializer(answer), 0))
        await self._finish()

    async def _messages(self, read: Callable[[bytes], Any]) -> AsyncIterator[Any]:
        while True:
            operations = await self._batch(cygrpc.ReceiveMessageOperation(0))
            data = operations[0].message()
            if data is None:
                return
            yield read(data)

    async def _batch(self, *operations: Any) -> Any:
        """Have the core do something, and wait until it has.

        Raises:
            CancelledError: everything is closed.
        """
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def tell(result: Any) -> None:
            if not done.done():
                done.set_result(result)

        if not self._send(operations, lambda event: self._on_loop(tell, event.batch_operations)):
            raise asyncio.CancelledError
        return await done
