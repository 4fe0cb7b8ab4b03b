"""The gRPC port among clients that hold connections or send too much."""

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import FrameType
from typing import Any

import grpc
import numpy as np
import pytest

from serving.errors import QueueFull
from serving.grpc.calls import Gate
from serving.heavy import alone
from serving.worker import Worker
from tests.serving.grpc.test_service import code_of, method, request, value
from tests.serving.grpc.test_service import pb as messages
from tests.serving.v2_worker import tiny_worker


@pytest.fixture
def body_timeout_s() -> float:
    return 2.0


@pytest.fixture
async def worker(tmp_path: Path, free_port: int, body_timeout_s: float) -> AsyncIterator[Worker]:
    limits: dict[str, Any] = {"max_connections": 3, "head_timeout_s": 2.0, "max_head_bytes": 2048}
    limits |= {"body_timeout_s": body_timeout_s}
    async with tiny_worker(tmp_path, host="127.0.0.1", v2_port=0, grpc_port=free_port, stop_s=1.0, **limits) as made:
        for listener in made._listeners:
            await listener.start()
        yield made


def channel(worker: Worker) -> grpc.aio.Channel:
    # Of its own: gRPC shares connections between channels of one process, and backs off from one that failed.
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.insecure_channel(f"127.0.0.1:{worker.settings.grpc_port}", options=options)


async def live(worker: Worker) -> grpc.StatusCode | None:
    async with channel(worker) as made:
        try:
            await method(made, "ServerLive")(messages.ServerLiveRequest(), timeout=20)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return None


async def test_silent_connections_are_closed_in_time_and_no_more_are_taken_than_allowed(worker: Worker):
    address = "127.0.0.1", worker.settings.grpc_port
    silent = [await asyncio.open_connection(*address) for _ in range(3)]
    started = time.monotonic()
    assert await live(worker) == grpc.StatusCode.UNAVAILABLE
    async with asyncio.timeout(30):
        for reader, writer in silent:
            while await reader.read(4096):
                pass
            writer.close()
    # By itself gRPC waits for two minutes.
    assert time.monotonic() - started < worker.settings.head_timeout_s + 10
    assert await live(worker) is None


async def test_a_connection_that_has_been_quiet_gives_way_to_a_new_one(worker: Worker):
    async with channel(worker) as first, channel(worker) as watching, channel(worker) as second:
        await method(first, "ServerLive")(messages.ServerLiveRequest())
        watch = watching.unary_stream("/grpc.health.v1.Health/Watch")(b"")
        await watch.read()
        # The system counts in steps of up to 10 ms how long a connection has been quiet.
        await asyncio.sleep(0.1)
        await method(second, "ServerLive")(messages.ServerLiveRequest())
        async with asyncio.timeout(20):
            while await live(worker):
                await asyncio.sleep(0.1)
            while first.get_state() == grpc.ChannelConnectivity.READY:
                await asyncio.sleep(0.01)
        assert second.get_state() == grpc.ChannelConnectivity.READY
        assert not watch.done()
    assert watch.cancelled()


# The client is as slow as the machine to send what it has begun.
@pytest.mark.parametrize("body_timeout_s", [60.0])
async def test_a_client_may_have_many_calls_in_flight(worker: Worker):
    async with channel(worker) as made:
        infer = method(made, "ModelInfer")
        await infer(request())
        answers = await asyncio.gather(*(infer(request(), timeout=60) for _ in range(900)))
    assert all(answer.outputs for answer in answers)


async def test_metadata_over_the_limit_is_refused(worker: Worker):
    async with channel(worker) as made:
        call = method(made, "ServerLive")(messages.ServerLiveRequest(), metadata=(("a", "b" * 4000),))
        assert (await code_of(call))[0] == "RESOURCE_EXHAUSTED"
        assert (await method(made, "ServerLive")(messages.ServerLiveRequest())).live


async def test_calls_that_do_not_send_their_message_are_ended_in_time(worker: Worker):
    async with channel(worker) as made:
        call = made.stream_unary("/inference.GRPCInferenceService/ModelInfer")()
        assert await code_of(call) == ("DEADLINE_EXCEEDED", "the message was not there within 2 s")
    assert value(worker, "rejected_total", reason="body_timeout") == 1


# What is not ended at once would be ended by the time of a message.
@pytest.mark.parametrize("body_timeout_s", [60.0])
async def test_a_call_without_a_message_is_refused_at_once_and_counted(worker: Worker):
    async with channel(worker) as made:
        for name in ("inference.GRPCInferenceService/ModelInfer", "grpc.health.v1.Health/Watch"):
            call = made.stream_unary(f"/{name}")(iter([]))
            answer = await asyncio.wait_for(code_of(call), 20)
            assert answer == ("INVALID_ARGUMENT", "the call has no message")
        leaving = made.stream_unary("/inference.GRPCInferenceService/ModelInfer")()
        assert (await method(made, "ServerLive")(messages.ServerLiveRequest())).live
        leaving.cancel()
        assert (await method(made, "ServerLive")(messages.ServerLiveRequest())).live
    assert value(worker, "rejected_total", reason="invalid") == 2


def test_there_is_room_for_so_many_messages_at_once_and_each_leaves_its_place():
    gate = Gate(100)
    with gate.admit(60):
        with pytest.raises(QueueFull, match="messages of 60 bytes are being worked on"), gate.admit(41):
            pass
        with gate.admit(40):
            assert gate.inside == 2
    with gate.admit(100):
        assert gate.inside == 1


async def test_a_message_that_was_refused_is_not_kept(worker: Worker):
    message = b"\xff" * 100_003
    counts = []
    async with channel(worker) as made:
        gc.disable()
        try:
            for _ in range(3):
                call = made.unary_unary("/inference.GRPCInferenceService/ModelInfer")(message)
                assert (await code_of(call))[0] == "INVALID_ARGUMENT"
                counts.append(sum(len(frame_values(each, len(message))) for each in gc.get_objects()))
        finally:
            gc.enable()
    assert counts == [counts[0]] * 3


def frame_values(each: object, size: int) -> list[bytes]:
    """Return the messages of a size among the variables of a frame."""
    # Some objects of other tests do not like to be asked for their class.
    variables = each.f_locals.values() if type(each) is FrameType else ()
    return [value for value in variables if isinstance(value, bytes) and len(value) == size]


async def test_who_waits_to_have_a_large_message_read_waits_no_longer_than_a_call_may(tmp_path: Path, free_port: int):
    settings: dict[str, Any] = {"host": "127.0.0.1", "v2_port": 0, "grpc_port": free_port, "request_timeout_s": 0.3}
    end = threading.Event()
    async with tiny_worker(tmp_path, **settings) as worker, channel(worker) as made:
        await worker._listeners[0].start()
        work = asyncio.ensure_future(alone(end.wait))
        large = request(np.zeros((400, 28, 28), np.uint8))
        code, details = await code_of(method(made, "ModelInfer")(large, timeout=10))
        assert (code, details) == ("DEADLINE_EXCEEDED", "the deadline passed before the answer was made")
        end.set()
        assert await work
