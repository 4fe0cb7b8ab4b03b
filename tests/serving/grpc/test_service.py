import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message_factory import GetMessageClass
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from serving.errors import QueueFull
from serving.grpc.stubs import inference_pb2 as pb
from serving.tracing import Traces
from serving.worker import Worker
from tests.serving.tiny_model import expected_logits
from tests.serving.v2_worker import TOKEN, tiny_worker

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 28, 28), np.uint8)
SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
Tensor = pb.ModelInferRequest.InferInputTensor
Call = Callable[..., grpc.aio.UnaryUnaryCall]


def method(channel: grpc.aio.Channel, name: str) -> Call:
    types = SERVICE.methods_by_name[name]
    return channel.unary_unary(
        f"/{SERVICE.full_name}/{name}",
        request_serializer=GetMessageClass(types.input_type).SerializeToString,
        response_deserializer=GetMessageClass(types.output_type).FromString,
    )


def request(images: np.ndarray = IMAGES, model: str = "tiny", **fields: Any) -> pb.ModelInferRequest:
    tensor = Tensor(name="images", datatype="UINT8", shape=images.shape)
    given: dict[str, Any] = {"model_name": model, "inputs": [tensor], "raw_input_contents": [images.tobytes()]}
    return pb.ModelInferRequest(**given | fields)


async def code_of(call: grpc.aio.UnaryUnaryCall) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code().name, caught.value.details()


def value(worker: Worker, name: str, **labels: str) -> float | None:
    return worker.metrics.registry.get_sample_value(f"mnist_{name}", labels)


async def test_digits_are_read(channel: grpc.aio.Channel):
    answer = await method(channel, "ModelInfer")(request(id="mine"))
    logits = np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(2, 10)
    assert np.allclose(logits, expected_logits(IMAGES), atol=1e-5)
    assert (answer.model_name, answer.model_version, answer.id) == ("tiny", "1", "mine")


async def test_case_e09_versions_are_told_apart(channel: grpc.aio.Channel):
    infer = method(channel, "ModelInfer")
    assert (await infer(request(model_version="1"))).model_version == "1"
    assert (await code_of(infer(request(model_version="999"))))[0] == "NOT_FOUND"
    assert (await code_of(infer(request(model="none"))))[0] == "NOT_FOUND"


async def test_errors_become_a_status_and_are_counted(worker: Worker, channel: grpc.aio.Channel):
    empty = pb.ModelInferRequest(model_name="tiny")
    assert await code_of(method(channel, "ModelInfer")(empty)) == (
        "INVALID_ARGUMENT",
        "inputs: expected one, the tensor 'images', got 0",
    )
    await code_of(method(channel, "ModelInfer")(request(model="x" * 100)))
    labels = {"protocol": "grpc", "method": "", "route": "ModelInfer"}
    assert value(worker, "requests_total", model="tiny", status="INVALID_ARGUMENT", **labels) == 1
    assert value(worker, "requests_total", model="unknown", status="NOT_FOUND", **labels) == 1
    assert value(worker, "requests_in_progress", protocol="grpc") == 0


async def test_an_error_does_not_repeat_all_of_what_was_sent(channel: grpc.aio.Channel):
    tensor, long = request().inputs[0], "é" * 100_000
    for made in (
        request(model=long),
        request(inputs=[Tensor(name="images", datatype="UINT8", shape=(1,) * 100_000)]),
        request(inputs=[Tensor(name="images", datatype=long)]),
        request(inputs=[tensor], outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name=long)]),
    ):
        code, details = await code_of(method(channel, "ModelInfer")(made))
        assert code in ("NOT_FOUND", "INVALID_ARGUMENT"), details
        assert "..." in details
        assert len(details) < 400


async def test_an_unknown_failure_tells_nothing_but_the_request_id(
    worker: Worker, channel: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch
):
    async def fail(*_: Any) -> None:
        raise RuntimeError("a secret")

    worker.catalogue.get().batcher.singly = False  # so that the event loop answers
    monkeypatch.setattr(worker.inference, "run", fail)
    code, details = await code_of(method(channel, "ModelInfer")(request(), metadata=(("x-request-id", "r-1"),)))
    assert code == "INTERNAL"
    assert details == "internal error; the log knows more under request id r-1"


async def test_a_full_queue_says_when_to_come_again(
    worker: Worker, channel: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch
):
    async def refuse(*_: Any) -> None:
        raise QueueFull("5 images are waiting", 1.5)

    worker.catalogue.get().batcher.singly = False  # so that the event loop answers
    monkeypatch.setattr(worker.inference, "run", refuse)
    call = method(channel, "ModelInfer")(request())
    assert await code_of(call) == ("RESOURCE_EXHAUSTED", "5 images are waiting")
    assert ("retry-after", "2") in list(await call.trailing_metadata())


@pytest.mark.parametrize(("given", "kept"), [("abc-1", True), ("a b", False), ("x" * 200, False)])
async def test_the_request_id_is_the_caller_s_or_a_new_one(channel: grpc.aio.Channel, given: str, kept: bool):
    call = method(channel, "ServerLive")(pb.ServerLiveRequest(), metadata=(("x-request-id", given),))
    assert (await call).live
    answered = dict(await call.trailing_metadata())["x-request-id"]
    assert (answered == given) is kept
    assert answered


async def test_a_deadline_that_passes_and_a_caller_who_leaves_free_the_call(
    worker: Worker, channel: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch
):
    begun, left = asyncio.Event(), asyncio.Queue[float]()

    async def wait(_: Any, __: Any, deadline: float) -> None:
        remaining_s = deadline - time.monotonic()
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.put_nowait(remaining_s)

    worker.catalogue.get().batcher.singly = False  # so that the event loop answers
    monkeypatch.setattr(worker.inference, "run", wait)
    assert (await code_of(method(channel, "ModelInfer")(request(), timeout=2)))[0] == "DEADLINE_EXCEEDED"
    remaining_s = await asyncio.wait_for(left.get(), 20)
    assert 0 < remaining_s <= 2.02  # from a second on gRPC rounds up to hundredths
    begun.clear()
    call = method(channel, "ModelInfer")(request())
    await asyncio.wait_for(begun.wait(), 20)
    call.cancel()
    await asyncio.wait_for(left.get(), 20)


async def test_case_e13_a_message_over_the_limit_is_refused_and_the_connection_lives(channel: grpc.aio.Channel):
    infer = method(channel, "ModelInfer")
    assert (await code_of(infer(request(np.zeros((1300, 28, 28), np.uint8)))))[0] == "RESOURCE_EXHAUSTED"
    answer = await infer(request(np.zeros((1000, 28, 28), np.uint8)))
    assert answer.outputs[0].shape[0] == 1000


async def test_the_server_and_its_models_describe_themselves(channel: grpc.aio.Channel):
    assert (await method(channel, "ServerReady")(pb.ServerReadyRequest())).ready
    server = await method(channel, "ServerMetadata")(pb.ServerMetadataRequest())
    assert server.name == "mnist-reader"
    assert "model_repository" in server.extensions
    model = await method(channel, "ModelMetadata")(pb.ModelMetadataRequest(name="tiny"))
    assert list(model.inputs[0].shape) == [-1, 28, 28]
    assert model.properties["execution_provider"] == "CPUExecutionProvider"
    config = (await method(channel, "ModelConfig")(pb.ModelConfigRequest(name="tiny"))).config
    assert (config.backend, config.input[0].data_type) == ("onnxruntime", pb.TYPE_UINT8)
    index = await method(channel, "RepositoryIndex")(pb.RepositoryIndexRequest(ready=True))
    assert [(each.name, each.version, each.state) for each in index.models] == [("tiny", "1", "READY")]


async def test_statistics_are_those_of_http(channel: grpc.aio.Channel):
    await method(channel, "ModelInfer")(request())
    for asked in (pb.ModelStatisticsRequest(), pb.ModelStatisticsRequest(name="tiny", version="1")):
        (model,) = (await method(channel, "ModelStatistics")(asked)).model_stats
        assert (model.inference_count, model.execution_count, model.inference_stats.success.count) == (2, 1, 1)


async def test_models_are_loaded_and_unloaded_with_the_token_alone(worker: Worker, channel: grpc.aio.Channel):
    load, unload = method(channel, "RepositoryModelLoad"), method(channel, "RepositoryModelUnload")
    asked, ready = pb.RepositoryModelUnloadRequest(model_name="tiny"), pb.ModelReadyRequest(name="tiny")
    for metadata in ((), (("authorization", "Bearer x"),), (("authorization-bin", b"x"),)):
        assert (await code_of(unload(asked, metadata=metadata)))[0] == "UNAUTHENTICATED"
    token = (("authorization", f"Bearer {TOKEN}"),)
    assert (await method(channel, "ModelReady")(ready)).ready
    await unload(asked, metadata=token)
    assert not (await method(channel, "ModelReady")(ready)).ready
    assert (await code_of(method(channel, "ModelInfer")(request())))[0] == "UNAVAILABLE"
    await load(pb.RepositoryModelLoadRequest(model_name="tiny"), metadata=token)
    assert (await method(channel, "ModelReady")(ready)).ready
    overrides = {"config": pb.ModelRepositoryParameter(string_param="{}")}
    changed = pb.RepositoryModelLoadRequest(model_name="tiny", parameters=overrides)
    assert (await code_of(load(changed, metadata=token)))[0] == "UNIMPLEMENTED"


@pytest.mark.parametrize("name", ["ModelStreamInfer", "SystemSharedMemoryStatus", "TraceSetting", "LogSettings"])
async def test_what_is_not_offered_is_unimplemented(channel: grpc.aio.Channel, name: str):
    assert (await code_of(channel.unary_unary(f"/{SERVICE.full_name}/{name}")(b"")))[0] == "UNIMPLEMENTED"


async def test_each_call_has_a_span_under_its_callers_but_questions_after_health_have_none(
    tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
):
    exporter = InMemorySpanExporter()
    traces = Traces({"OTEL_TRACES_EXPORTER": "console"}, exporter)
    monkeypatch.setattr("serving.worker.Traces", lambda _: traces)
    caller = (("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),)
    async with tiny_worker(tmp_path, host="127.0.0.1", v2_port=0, grpc_port=free_port) as worker:
        for listener in worker._listeners:
            await listener.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{free_port}") as channel:
            await method(channel, "ModelInfer")(request(), metadata=caller)
            await method(channel, "ServerLive")(pb.ServerLiveRequest())
            unknown = pb.ModelInferRequest(model_name="none")
            assert (await code_of(method(channel, "ModelInfer")(unknown)))[0] == "NOT_FOUND"
            begun, left = asyncio.Event(), asyncio.Event()

            async def wait(*_: object) -> None:
                begun.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    left.set()

            monkeypatch.setattr(worker.inference, "run", wait)
            leaving = method(channel, "ModelInfer")(request())
            await asyncio.wait_for(begun.wait(), 5)
            leaving.cancel()
            await asyncio.wait_for(left.wait(), 5)
    traces.flush()
    infer, refused, gone = sorted(exporter.get_finished_spans(), key=lambda span: span.start_time)
    assert infer.name == refused.name == "inference.GRPCInferenceService/ModelInfer"
    assert f"{infer.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert [span.attributes["rpc.grpc.status_code"] for span in (infer, refused, gone)] == [0, 5, 1]
