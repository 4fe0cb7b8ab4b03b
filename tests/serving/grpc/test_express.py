"""What the thread of gRPC answers is what the event loop answers; what is not ordinary it leaves to the loop."""

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from serving.grpc.calls import Gate
from serving.grpc.core_call import Answer
from serving.grpc.express import Express
from serving.heavy import INLINE_TEXT_BYTES
from serving.worker import Worker
from tests.serving.grpc.test_service import IMAGES, code_of, method, pb, request, value

Ask = Callable[..., Answer | None]


@pytest.fixture
def gate() -> Gate:
    return Gate(1_000_000)


@pytest.fixture
def express(worker: Worker, gate: Gate) -> Express:
    return Express(worker.catalogue, worker.metrics, gate, worker.settings.max_images)


def classified() -> pb.ModelInferRequest:
    asked = request(id="mine")
    output = asked.outputs.add(name="probabilities")
    output.parameters["classification"].int64_param = 3
    return asked


@pytest.mark.parametrize(
    "asked",
    [
        request(),
        request(IMAGES[:1], id="mine"),
        request(model_version="1"),
        request(IMAGES[:, np.newaxis]),
        classified(),
    ],
)
async def test_an_ordinary_call_is_answered_as_the_event_loop_answers_it(
    worker: Worker, channel: grpc.aio.Channel, express: Express, asked: pb.ModelInferRequest
):
    answer = express.answer(asked.SerializeToString(), [("x-request-id", "r-1")], None)
    assert answer is not None
    worker.catalogue.get().batcher.singly = False
    call = method(channel, "ModelInfer")(asked, metadata=(("x-request-id", "r-1"),))
    assert pb.ModelInferResponse.FromString(answer.message) == await call
    assert list(answer.trailing) == [tuple(pair) for pair in await call.trailing_metadata()]
    labels = {"protocol": "grpc", "method": "", "route": "ModelInfer", "model": "tiny", "status": "OK"}
    assert value(worker, "requests_total", **labels) == 2


def timed() -> pb.ModelInferRequest:
    asked = request()
    asked.parameters["timeout"].int64_param = 5
    return asked


def encoded() -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(name="images", datatype="BYTES", shape=[1])
    return pb.ModelInferRequest(model_name="tiny", inputs=[tensor], raw_input_contents=[b"\1\0\0\0x"])


@pytest.mark.parametrize(
    "asked",
    [
        request(model="none"),
        request(model_version="9"),
        request(np.zeros((0, 28, 28), np.uint8)),
        request(np.zeros((65, 28, 28), np.uint8)),
        pb.ModelInferRequest(model_name="tiny"),
        timed(),
        encoded(),
    ],
)
async def test_what_is_not_ordinary_is_left_to_the_event_loop_uncounted(
    worker: Worker, express: Express, asked: pb.ModelInferRequest
):
    assert express.answer(asked.SerializeToString(), [], None) is None
    assert value(worker, "batch_images_count", model="tiny", version="1") == 0
    assert not [sample for metric in worker.metrics.requests.collect() for sample in metric.samples]


async def test_a_busy_model_a_late_call_and_a_closed_gate_are_left_too(worker: Worker, express: Express, gate: Gate):
    message, batcher = request().SerializeToString(), worker.catalogue.get().batcher
    assert express.answer(b"\x0a", [], None) is None
    long = request(id="x" * INLINE_TEXT_BYTES).SerializeToString()
    assert express.answer(long, [], None) is None
    assert express.answer(message, [], 0.0) is None
    assert express.answer(message, [], 1.0) is not None
    for name, state in (("_busy", True), ("singly", False)):
        before = getattr(batcher, name)
        setattr(batcher, name, state)
        assert express.answer(message, [], None) is None
        setattr(batcher, name, before)
    gate.closed = True
    assert express.answer(message, [], None) is None


@pytest.mark.parametrize("given", [[], [("x-request-id", b"raw")], [("x-request-id", "a b")]])
async def test_a_call_without_a_good_id_gets_one(express: Express, given: Any):
    answer = express.answer(request().SerializeToString(), given, None)
    assert answer is not None
    assert [(key, len(text)) for key, text in answer.trailing] == [("x-request-id", 32)]


async def test_the_hot_path_is_what_callers_meet(worker: Worker, channel: grpc.aio.Channel, monkeypatch: Any):
    async def fail(*_: Any) -> None:
        raise AssertionError("the event loop was asked")

    monkeypatch.setattr(worker.inference, "run", fail)
    call = method(channel, "ModelInfer")(request(), metadata=(("x-request-id", "r-1"),), timeout=20)
    assert len((await call).outputs) == 2
    assert dict(await call.trailing_metadata())["x-request-id"] == "r-1"
    assert (await code_of(method(channel, "ModelInfer")(request(model="none"))))[0] == "NOT_FOUND"
