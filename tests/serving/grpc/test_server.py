import asyncio
import logging
import os
import socket
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from serving.grpc.health import Health
from serving.grpc.server import NICE, THREADS, GrpcServer
from serving.grpc.service import InferenceService
from serving.tracing import Traces
from serving.worker import Worker
from tests.serving.grpc.test_service import code_of, method
from tests.serving.grpc.test_service import pb as messages
from tests.serving.v2_worker import tiny_worker

Request, Response = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
INFERENCE = "inference.GRPCInferenceService"

HEALTH, REFLECTION = "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
LARGE = Request(service="x" * 32_768).SerializeToString()

# No traces.
OFF = Traces({})


@pytest.mark.parametrize("service", ["", INFERENCE])
async def test_case_e17_health_follows_readiness(worker: Worker, channel: grpc.aio.Channel, service: str):
    stub = health_pb2_grpc.HealthStub(channel)
    assert (await stub.Check(Request(service=service))).status == Response.SERVING
    worker.catalogue.drain()
    assert (await stub.Check(Request(service=service))).status == Response.NOT_SERVING
    assert not (await method(channel, "ServerReady")(messages.ServerReadyRequest())).ready


async def test_case_e17_an_unknown_service_is_not_found(channel: grpc.aio.Channel):
    stub = health_pb2_grpc.HealthStub(channel)
    assert (await code_of(stub.Check(Request(service="x"))))[0] == "NOT_FOUND"
    watch = stub.Watch(Request(service="x"))
    assert (await watch.read()).status == Response.SERVICE_UNKNOWN
    watch.cancel()


@pytest.mark.parametrize(
    ("name", "code"), [(f"/{INFERENCE}/ModelInfer", "INVALID_ARGUMENT"), ("/grpc.health.v1.Health/Check", "NOT_FOUND")]
)
async def test_bytes_that_are_no_message_are_refused_counted_and_not_logged(
    worker: Worker, channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture, name: str, code: str
):
    assert (await code_of(channel.unary_unary(name)(b"\x0a")))[0] == code
    assert "Traceback" not in caplog.text
    counted = worker.metrics.registry.get_sample_value("mnist_rejected_total", {"reason": "invalid"})
    assert counted == (INFERENCE in name)


async def test_every_watcher_is_told_of_a_change_though_another_leaves(worker: Worker, channel: grpc.aio.Channel):
    stub = health_pb2_grpc.HealthStub(channel)
    stays, leaves = stub.Watch(Request()), stub.Watch(Request())
    assert [(await watch.read()).status for watch in (stays, leaves)] == [Response.SERVING] * 2
    leaves.cancel()
    await asyncio.sleep(0.05)
    worker.catalogue.drain()
    assert (await asyncio.wait_for(stays.read(), 20)).status == Response.NOT_SERVING


async def test_a_watcher_is_told_of_a_stop_that_begins_while_an_answer_is_on_its_way(worker: Worker):
    health = Health(worker.catalogue, [])
    watch = health.watch(Request(), None)
    assert (await anext(watch)).status == Response.SERVING
    health.close()
    assert [answer.status async for answer in watch] == [Response.NOT_SERVING]


async def test_a_watcher_does_not_hold_up_the_stop(worker: Worker, channel: grpc.aio.Channel):
    watch = health_pb2_grpc.HealthStub(channel).Watch(Request())
    assert (await watch.read()).status == Response.SERVING
    # A client that is not waiting for a message sees but the end of the call.
    told = asyncio.ensure_future(watch.read())
    (server,) = worker._listeners
    await asyncio.wait_for(server.stop(), worker.settings.stop_s / 2)
    assert (await told).status == Response.NOT_SERVING


async def test_case_d05_reflection_tells_the_services_and_their_messages(channel: grpc.aio.Channel):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=INFERENCE),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="grpc.health.v1.Health"),
    ]
    services, *files = [answer async for answer in stub.ServerReflectionInfo(iter(asked))]
    names = [service.name for service in services.list_services_response.service]
    assert names == ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection", INFERENCE]
    described = [
        FileDescriptorProto.FromString(answer.file_descriptor_response.file_descriptor_proto[0]) for answer in files
    ]
    assert [file.package for file in described] == ["inference", "grpc.health.v1"]


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        (f"{HEALTH}/Check", LARGE),
        (f"{HEALTH}/Watch", LARGE),
        (REFLECTION, LARGE),
        (REFLECTION, b"\xff\xff"),
    ],
)
async def test_a_question_that_is_none_or_too_large_is_refused(
    channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture, name: str, sent: bytes
):
    call = channel.stream_stream(f"/{name}")
    async with asyncio.timeout(10):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [answer async for answer in call(iter([sent]))]
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "this is no message of the call, or has more than 32768 bytes"
    assert not caplog.records


async def test_what_runs_is_finished_before_the_stop_and_what_comes_is_refused(
    worker: Worker, channel: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch
):
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def statistics(*_: str) -> dict[str, list[object]]:
        begun.set()
        await go_on.wait()
        return {"model_stats": []}

    monkeypatch.setattr(worker.statistics, "of", statistics)
    call = method(channel, "ModelStatistics")(messages.ModelStatisticsRequest())
    await asyncio.wait_for(begun.wait(), 20)
    (server,) = worker._listeners
    stopping = asyncio.create_task(server.stop())
    async with asyncio.timeout(20):
        while not server._gate.closed:
            await asyncio.sleep(0.01)
    assert not stopping.done()
    # Nobody connects any more: gRPC would cancel what arrives at the end, instead of refusing it.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", worker.settings.grpc_port), 1)
    refused = method(channel, "ServerLive")(messages.ServerLiveRequest())
    assert await code_of(refused) == ("UNAVAILABLE", "the server is stopping")
    go_on.set()
    assert list((await call).model_stats) == []
    await asyncio.wait_for(stopping, 20)


async def test_grpcs_own_threads_let_others_go_first(worker: Worker, channel: grpc.aio.Channel):
    def priorities() -> set[int]:
        tasks = Path("/proc/self/task").iterdir()
        names = {int(task.name): (task / "comm").read_text().strip() for task in tasks}
        return {os.getpriority(os.PRIO_PROCESS, task) for task, name in names.items() if name in THREADS}

    async with asyncio.timeout(20):
        while priorities() != {min(os.getpriority(os.PRIO_PROCESS, 0) + NICE, 19)}:
            await asyncio.sleep(0.1)


async def test_a_server_that_was_not_started_is_stopped_all_the_same(worker: Worker):
    settings = worker.settings
    service = InferenceService(worker.catalogue, worker.inference, worker.statistics, worker.access, settings, OFF)
    await GrpcServer(service, worker.catalogue, worker.metrics, settings).stop()


async def test_an_address_that_is_not_ours_is_an_error(worker: Worker):
    settings = worker.settings.model_copy(update={"host": "192.0.2.1"})
    service = InferenceService(worker.catalogue, worker.inference, worker.statistics, worker.access, settings, OFF)
    with pytest.raises(OSError, match=r"gRPC cannot listen on 192\.0\.2\.1"):
        await GrpcServer(service, worker.catalogue, worker.metrics, settings).start()


async def test_an_address_of_version_6_is_put_in_brackets(worker: Worker):
    settings = worker.settings.model_copy(update={"host": "::1"})
    service = InferenceService(worker.catalogue, worker.inference, worker.statistics, worker.access, settings, OFF)
    assert GrpcServer(service, worker.catalogue, worker.metrics, settings)._address.startswith("[::1]:")


async def test_without_a_token_no_model_is_loaded_and_calls_are_logged_where_asked(
    tmp_path: Path, free_port: int, caplog: pytest.LogCaptureFixture
):
    settings = {"host": "127.0.0.1", "v2_port": 0, "grpc_port": free_port, "access_log": True}
    async with tiny_worker(tmp_path, **settings) as worker:
        (server,) = worker._listeners
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{free_port}") as channel:
            for name in ("RepositoryModelLoad", "RepositoryModelUnload"):
                asked = messages.RepositoryModelUnloadRequest(model_name="tiny")
                assert (await code_of(method(channel, name)(asked)))[0] == "UNIMPLEMENTED"
            with caplog.at_level(logging.INFO):
                await method(channel, "ServerLive")(messages.ServerLiveRequest())
            (record,) = [record for record in caplog.records if record.message == "request"]
            assert (record.call, record.status) == ("ServerLive", "OK")
