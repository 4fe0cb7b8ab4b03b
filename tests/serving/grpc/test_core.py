"""The server around gRPC's C core, with handlers of its own."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from serving.grpc.core import CoreServer, Limits
from serving.grpc.core_call import Answer, Context
from serving.grpc.server import _options
from serving.settings import Settings
from tests.serving.grpc import strangers
from tests.serving.grpc.test_service import code_of

NAME = "test.Service"
OK, EXHAUSTED = grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED
Options = list[tuple[str, int]]
OPTIONS: Options = [("grpc.so_reuseport", 0)]
LIMITS = Limits(calls=10, awaited=10, streams=10, message_s=30)


class Handlers:
    """One method of each kind that is used here."""

    def __init__(self) -> None:
        self.begun, self.go_on, self.left = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.refused: list[str] = []

    async def echo(self, request: bytes, context: Context) -> bytes:
        remaining_s = context.time_remaining()
        return request + context.peer()[:4].encode() + (b"" if remaining_s is None else b" soon")

    async def fail(self, request: bytes, context: Context) -> bytes:
        raise ValueError("secret")

    async def wait(self, request: bytes, context: Context) -> bytes:
        self.begun.set()
        try:
            await self.go_on.wait()
        finally:
            self.left.set()
        return b"done"

    async def count(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request * 2
        await context.abort(grpc.StatusCode.DATA_LOSS, "no more", (("a", "b"),))

    def generic(self) -> grpc.GenericRpcHandler:
        methods = {
            name: grpc.unary_unary_rpc_method_handler(getattr(self, name), bytes, bytes)
            for name in ("echo", "fail", "wait")
        }
        methods["count"] = grpc.stream_stream_rpc_method_handler(self.count, bytes, bytes)
        return grpc.method_handlers_generic_handler(NAME, methods)


def started(port: int, handlers: Handlers, limits: Limits, options: Options, **express: Any) -> CoreServer:
    quick = {f"/{NAME}/{name}": each for name, each in express.items()}
    server = CoreServer(options, limits, quick, handlers.refused.append)
    server.add_generic_rpc_handlers([handlers.generic()])
    server.add_port(f"127.0.0.1:{port}", None)
    server.start()
    return server


@asynccontextmanager
async def serving(
    port: int, handlers: Handlers, limits: Limits = LIMITS, options: Options = OPTIONS, **express: Any
) -> AsyncIterator[Any]:
    """Yield a channel to a server with these handlers."""
    server = started(port, handlers, limits, options, **express)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await asyncio.wait_for(server.stop(), 20)
    assert [*server._calls, *server._streams, *server._awaited] == []
    await server.stop()


def call(channel: Any, name: str, request: bytes = b"x", **options: Any) -> Any:
    return channel.unary_unary(f"/{NAME}/{name}")(request, **options)


async def test_a_handler_learns_of_its_caller_and_its_deadline(free_port: int):
    async with serving(free_port, Handlers()) as channel:
        assert await call(channel, "echo") == b"xipv4"
        assert await call(channel, "echo", timeout=20) == b"xipv4 soon"
        assert (await code_of(call(channel, "none")))[0] == "UNIMPLEMENTED"


async def test_a_handler_that_fails_is_logged_and_its_caller_told_nothing(
    free_port: int, caplog: pytest.LogCaptureFixture
):
    async with serving(free_port, Handlers()) as channel:
        assert await code_of(call(channel, "fail")) == ("INTERNAL", "internal error")
        assert await call(channel, "echo") == b"xipv4"
    assert "secret" in caplog.text


async def test_no_more_calls_than_allowed_run_at_once(free_port: int):
    handlers = Handlers()
    async with serving(free_port, handlers, LIMITS._replace(calls=1)) as channel:
        waiting = asyncio.ensure_future(call(channel, "wait"))
        await asyncio.wait_for(handlers.begun.wait(), 20)
        assert (await code_of(call(channel, "echo")))[0] == "RESOURCE_EXHAUSTED"
        handlers.go_on.set()
        assert await waiting == b"done"
        assert await call(channel, "echo") == b"xipv4"
    assert handlers.refused == ["calls"]


def half(channel: Any) -> Any:
    """Begin a call, and do not send its message."""
    return channel.stream_unary(f"/{NAME}/echo")()


async def ended(codes: list[asyncio.Future[grpc.StatusCode]], count: int) -> None:
    """Wait until so many have ended."""
    async with asyncio.timeout(20):
        while sum(code.done() for code in codes) < count:
            await asyncio.sleep(0.01)


async def test_calls_that_do_not_send_their_message_keep_nobody_out(free_port: int):
    handlers = Handlers()
    async with serving(free_port, handlers, LIMITS._replace(awaited=3)) as channel:
        halves = [half(channel) for _ in range(8)]
        codes = [asyncio.ensure_future(each.code()) for each in halves]
        await ended(codes, 5)
        assert await call(channel, "echo") == b"xipv4"
        await ended(codes, 6)
        last, waiting = (each for each, code in zip(halves, codes, strict=True) if not code.done())
        await last.write(b"late")
        await last.done_writing()
        assert await last == b"lateipv4"
        assert {code.result() for code in codes if code.done()} == {OK, EXHAUSTED}
        assert not waiting.done()
    assert handlers.refused == ["calls"] * 6


async def test_many_calls_that_wait_have_no_other_cancelled(free_port: int):
    handlers, entered, go_on = Handlers(), threading.Event(), threading.Event()
    many = LIMITS._replace(awaited=3000)

    def hold_up(*_: Any) -> None:
        entered.set()
        go_on.wait(20)

    async with serving(free_port, handlers, many, _options(Settings()), echo=hold_up) as channel:
        first = asyncio.ensure_future(call(channel, "echo"))
        assert await asyncio.to_thread(entered.wait, 20)
        with strangers.begun(free_port, f"/{NAME}/wait".encode(), 1000), strangers.begun(free_port, b"/", 1000):
            others = [asyncio.ensure_future(call(channel, "echo")) for _ in range(9)]
            await asyncio.sleep(0.5)  # that all are there before the first is answered
            go_on.set()
            assert await asyncio.gather(first, *others) == [b"xipv4"] * 10


async def test_a_message_that_does_not_come_in_time_ends_its_call(free_port: int):
    handlers = Handlers()
    async with serving(free_port, handlers, LIMITS._replace(message_s=1.5)) as channel:
        started = time.monotonic()
        halves = [half(channel) for _ in range(2)]
        ended = ("DEADLINE_EXCEEDED", "the message was not there within 1.5 s")
        assert [await code_of(each) for each in halves] == [ended] * 2
        assert 1.5 <= time.monotonic() - started < 10
        assert await call(channel, "echo") == b"xipv4"
    assert handlers.refused == ["body_timeout"] * 2


async def test_open_streams_keep_no_call_out(free_port: int):
    handlers = Handlers()
    async with serving(free_port, handlers, LIMITS._replace(calls=1, streams=2)) as channel:
        count = channel.stream_stream(f"/{NAME}/count")
        streams = [count() for _ in range(2)]
        for stream in streams:
            await stream.write(b"a")
            assert await stream.read() == b"aa"
        assert await count().code() == EXHAUSTED
        assert await call(channel, "echo") == b"xipv4"
        await streams[0].done_writing()
        assert await streams[0].code() == grpc.StatusCode.DATA_LOSS
        again = count()
        await again.write(b"b")
        assert await again.read() == b"bb"
    assert handlers.refused == ["calls"]


async def test_who_leaves_frees_the_handler_and_a_stop_ends_what_runs(free_port: int):
    handlers = Handlers()
    async with serving(free_port, handlers) as channel:
        leaving = call(channel, "wait")
        await asyncio.wait_for(handlers.begun.wait(), 20)
        leaving.cancel()
        await asyncio.wait_for(handlers.left.wait(), 20)
        handlers.begun.clear()
        handlers.left.clear()
        running = call(channel, "wait")
        await asyncio.wait_for(handlers.begun.wait(), 20)
    await asyncio.wait_for(handlers.left.wait(), 20)
    assert running.cancelled() or running.done()


class Stubborn(Handlers):
    """Goes on although its call is cancelled."""

    async def wait(self, request: bytes, context: Context) -> bytes:
        try:
            return await super().wait(request, context)
        except asyncio.CancelledError:
            await self.go_on.wait()
            asyncio.get_running_loop().call_later(0.1, self.begun.set)
            return b"late"


async def test_a_handler_that_goes_on_after_the_stop_ends_alone(free_port: int):
    handlers = Stubborn()
    server = started(free_port, handlers, LIMITS, OPTIONS)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{free_port}") as channel:
        running = asyncio.ensure_future(code_of(call(channel, "wait")))
        await asyncio.wait_for(handlers.begun.wait(), 20)
        await asyncio.wait_for(server.stop(), 20)
        assert (await running)[0] == "UNAVAILABLE"
    handlers.begun.clear()
    handlers.go_on.set()
    # The core ends a process that gives a closed queue something to do.
    await asyncio.wait_for(handlers.begun.wait(), 20)
    assert server._calls == set()


async def test_who_leaves_while_the_loop_is_busy_frees_the_handler(free_port: int):
    handlers, arrived = Handlers(), threading.Semaphore(0)
    async with serving(free_port, handlers, LIMITS._replace(calls=3), wait=lambda *_: arrived.release()) as channel:
        with grpc.insecure_channel(f"127.0.0.1:{free_port}") as leaving:
            calls = [leaving.unary_unary(f"/{NAME}/wait").future(b"x") for _ in range(3)]
            assert all(arrived.acquire(timeout=20) for _ in calls)
            assert all(each.cancel() for each in calls)
            time.sleep(0.3)  # that the server learns of it before its loop goes on
        await asyncio.wait_for(handlers.left.wait(), 20)
        assert await call(channel, "echo") == b"xipv4"


async def test_messages_go_both_ways_until_the_status(free_port: int):
    async with serving(free_port, Handlers()) as channel:
        stream = channel.stream_stream(f"/{NAME}/count")(iter([b"a", b"b"]))
        assert [await stream.read(), await stream.read()] == [b"aa", b"bb"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.DATA_LOSS, "no more")
        assert list(await stream.trailing_metadata()) == [("a", "b")]


async def test_what_is_ordinary_is_answered_before_the_handler(free_port: int):
    def express(message: bytes, metadata: Any, remaining_s: float | None) -> Answer | None:
        return Answer(b"quick", (("c", "d"),)) if message == b"x" else None

    async with serving(free_port, Handlers(), echo=express) as channel:
        quick = call(channel, "echo")
        assert (await quick, list(await quick.trailing_metadata())) == (b"quick", [("c", "d")])
        assert await call(channel, "echo", b"y") == b"yipv4"


async def test_a_fault_of_the_thread_is_logged_and_does_not_end_it(free_port: int, caplog: pytest.LogCaptureFixture):
    def express(message: bytes, metadata: Any, remaining_s: float | None) -> Answer | None:
        raise RuntimeError("broken")

    caplog.set_level(logging.ERROR)
    async with serving(free_port, Handlers(), echo=express) as channel:
        assert (await code_of(call(channel, "echo")))[0] == "INTERNAL"
        assert (await code_of(call(channel, "none")))[0] == "UNIMPLEMENTED"
    assert "broken" in caplog.text


@pytest.mark.parametrize(("suffix", "more", "code"), strangers.STRANGE)
async def test_a_call_that_no_client_would_make_is_answered(
    free_port: int, caplog: pytest.LogCaptureFixture, suffix: bytes, more: tuple[tuple[bytes, bytes], ...], code: bytes
):
    async with serving(free_port, Handlers()):
        path = f"/{NAME}/echo".encode() + suffix
        received = await asyncio.to_thread(strangers.call, free_port, path, *more)
    assert strangers.status(code) in received
    # Its own layer's lines are kept away by `logs.configure`.
    assert [record for record in caplog.records if record.name.startswith("serving")] == []


async def test_a_port_that_is_taken_is_an_error(free_port: int):
    async with serving(free_port, Handlers()):
        other = CoreServer(OPTIONS, LIMITS, {}, print)
        with pytest.raises(OSError, match="gRPC cannot listen"):
            other.add_port(f"127.0.0.1:{free_port}", None)
