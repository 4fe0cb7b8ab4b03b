"""The Open Inference Protocol over HTTP and gRPC, as the real server meets it from clients with other ideas of it."""

import json
import os
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.grpc.stubs import inference_pb2 as pb
from tests.e2e.server import Server

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "100"))
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=EXAMPLES <= 100,
    suppress_health_check=list(HealthCheck),
)

# What a caller may be told by HTTP, and the same by gRPC.
STATUSES = {200, 400, 404, 408, 411, 413, 415, 431, 501}
CODES = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED"}

numbers = st.integers(-(1 << 70), 1 << 70) | st.floats() | st.integers(-1, 300)
scalars = st.none() | st.booleans() | numbers | st.text(max_size=20)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
)
names = st.sampled_from(["images", "logits", "probabilities", "", "x"])
datatypes = st.sampled_from(["UINT8", "FP32", "FP16", "FP64", "BYTES", "INT64", "BF16", "", "uint8"])
shapes = st.sampled_from([[1, 28, 28], [1, 1, 28, 28], [2, 28, 28], [1], [0, 28, 28], [-1, 28, 28], [2**62, 28, 28]])
parameters = st.dictionaries(
    st.sampled_from(["binary_data_size", "binary_data", "binary_data_output", "classification", "timeout", "priority"]),
    scalars,
    max_size=3,
)
pixels = st.just([0] * 784) | st.lists(numbers, max_size=30) | st.just(np.eye(28).tolist())


def some(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects with these fields, any of them left out or something else altogether."""
    return st.fixed_dictionaries({}, optional={name: field | anything for name, field in fields.items()})


def object_with(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects with these fields; one in a few is wrong or not there."""
    return st.fixed_dictionaries(fields) | some(**fields)


tensors = object_with(
    name=names, datatype=datatypes, shape=shapes | st.lists(numbers), data=pixels, parameters=parameters
)
wanted = object_with(name=names, parameters=parameters)
bodies = object_with(
    id=st.text(max_size=9), inputs=st.lists(tensors, max_size=2), outputs=st.lists(wanted, max_size=2)
) | some(parameters=parameters, inputs=st.lists(tensors, min_size=1, max_size=1))


@pytest.fixture(scope="module")
def client(server: Server):
    with httpx.Client(base_url=f"{server.v2_url}/v2/models/mnist-cnn", timeout=20) as made:
        yield made


def send(client: httpx.Client, content: bytes, headers: dict[str, str]) -> None:
    answer = client.post("infer", content=content, headers=headers)
    assert answer.status_code in STATUSES, answer.text
    if answer.status_code != 200:
        assert set(answer.json()) == {"error"}


def dump(body: object) -> bytes:
    return json.dumps(body).encode("utf-8", "surrogatepass")


@FUZZ
@given(bodies | anything, st.binary(max_size=60))
def test_any_json_gets_an_answer_or_an_error(client: httpx.Client, body: object, tail: bytes):
    send(client, dump(body) + tail, {})


@FUZZ
@given(
    tensors,
    st.sampled_from([0, 1, 784, 3136, 4, 100]).map(bytes) | st.binary(max_size=200),
    st.sampled_from(["true", "0", "-1", "1e3", "99999999999999999999", "", "+5", "7 7", "0x10", "ten"])
    | st.integers().map(str),
    st.sampled_from(["", "gzip", "deflate", "br", "gzip, gzip"]),
)
def test_any_binary_body_gets_an_answer_or_an_error(
    client: httpx.Client, tensor: dict[str, Any], blob: bytes, length: str, encoding: str
):
    head = dump({"inputs": [tensor]})
    headers = {"inference-header-content-length": str(len(head)) if length == "true" else length}
    send(client, head + blob, headers | ({"content-encoding": encoding} if encoding else {}))


inner_tensors = st.builds(
    pb.ModelInferRequest.InferInputTensor,
    name=names,
    datatype=datatypes,
    shape=shapes | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
    contents=st.builds(
        pb.InferTensorContents,
        uint_contents=st.just([7] * 784) | st.lists(st.integers(0, 2**32 - 1), max_size=5),
        fp32_contents=st.just([]) | st.lists(st.floats(width=32), max_size=5),
        bytes_contents=st.just([]) | st.lists(st.binary(max_size=30), max_size=3),
    ),
)
requests = st.builds(
    pb.ModelInferRequest,
    model_name=st.sampled_from(["mnist-cnn", "mnist-cnn", "", "none"]),
    model_version=st.sampled_from(["", "1", "7", "x"]),
    id=st.text(st.characters(codec="utf-8"), max_size=9),
    inputs=st.lists(inner_tensors, max_size=2),
    outputs=st.lists(st.builds(pb.ModelInferRequest.InferRequestedOutputTensor, name=names), max_size=2),
    raw_input_contents=st.lists(st.sampled_from([b"", bytes(784), bytes(3136)]) | st.binary(max_size=50), max_size=2),
)


@pytest.fixture(scope="module")
def infer(server: Server):
    """Return a call that sends bytes, whatever they are, and gives the name of the code."""
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

        def send_bytes(data: bytes) -> str:
            try:
                pb.ModelInferResponse.FromString(call(data, timeout=20))
            except grpc.RpcError as error:
                return error.code().name
            return "OK"

        yield send_bytes


@FUZZ
@given(requests)
def test_any_message_gets_an_answer_or_an_error(infer, request_message: pb.ModelInferRequest):
    assert infer(request_message.SerializeToString()) in CODES


@FUZZ
@given(requests, st.integers(0, 400), st.binary(max_size=8), st.booleans())
def test_a_broken_message_gets_an_error(
    infer, request_message: pb.ModelInferRequest, place: int, other: bytes, cut: bool
):
    data = request_message.SerializeToString()
    assert infer(data[:place] + other + (b"" if cut else data[place + len(other) :])) in CODES


def test_afterwards_everything_is_as_before(server: Server, client: httpx.Client):
    assert "Traceback" not in server.log
    assert server.sample('mnist_requests_in_progress{protocol="grpc"}') == 0
    body = {"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 28, 28], "data": [9] * 784}]}
    assert client.post("infer", json=body).status_code == 200
