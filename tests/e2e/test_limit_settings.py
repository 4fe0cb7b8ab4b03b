"""Every limit that is a setting, met by one client on each port of the real service: a status and a text, no work."""

import base64
import functools
import io
import json
import re
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import grpc
import httpx
import psutil
import pytest
from PIL import Image

from serving.grpc.stubs import inference_pb2 as pb
from serving.settings import VARIABLES
from tests.e2e.conftest import Start
from tests.e2e.server import Server, wait_until

LIMITS = {
    "MNIST_MAX_BODY_BYTES": "1000000",
    "MNIST_MAX_PENDING_BYTES": "2500000",
    "MNIST_MAX_PIXELS": "1000000",
    "MNIST_MAX_IMAGES": "20",
    "MNIST_MAX_JSON_DEPTH": "10",
    "MNIST_MAX_JSON_VALUES": "100000",
    "MNIST_MAX_PART_HEADER_BYTES": "300",
    "MNIST_MAX_HEAD_BYTES": "5000",
    "MNIST_HEAD_TIMEOUT_S": "1",
    "MNIST_BODY_TIMEOUT_S": "2",
    "MNIST_MAX_CONNECTIONS": "40",
}
PORTS = ["port", "v2_port"]
INFER = "/v2/models/mnist-cnn/infer"
FORM = {"content-type": "multipart/form-data; boundary=x"}


def picture(form: str, size: tuple[int, int], **options: object) -> bytes:
    stream = io.BytesIO()
    Image.new("1" if form == "PNG" else "L", size).save(stream, form, **options)
    return stream.getvalue()


@functools.cache
def huge() -> bytes:
    return picture("PNG", (30_000, 30_000))


def element() -> bytes:
    return struct.pack("<I", len(huge())) + huge()


def part(head: str = 'content-disposition: form-data; name="a"') -> bytes:
    return f"--x\r\n{head}\r\n\r\n1\r\n".encode()


def binary(shape: list[int], datatype: str, data: bytes) -> dict[str, object]:
    tensor = {"name": "images", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    return {"content": head + data, "headers": {"inference-header-content-length": str(len(head))}}


def shaped(shape: list[int]) -> dict[str, object]:
    return {"inputs": [{"name": "images", "shape": shape, "datatype": "UINT8", "data": [1]}]}


def chunks(size: int) -> Iterator[bytes]:
    for _ in range(size // 10_000):
        yield bytes(10_000)


# Setting, path, what is sent, the status, and what the text says.
CASES: list[tuple[str, str, Callable[[], dict[str, object]], int, str]] = [
    ("MNIST_MAX_BODY_BYTES", "/predict", lambda: {"content": bytes(1_000_001)}, 413, "1000000 bytes"),
    ("MNIST_MAX_BODY_BYTES", "/predict", lambda: {"content": chunks(1_200_000)}, 413, "1000000 bytes"),
    ("MNIST_MAX_BODY_BYTES", INFER, lambda: {"content": chunks(1_200_000)}, 413, "1000000 bytes"),
    (
        "MNIST_MAX_BODY_BYTES",
        INFER,
        lambda: {"content": zlib.compress(bytes(100_000_000)), "headers": {"content-encoding": "deflate"}},
        413,
        "unpacks to more than the limit of 1000000 bytes",
    ),
    ("MNIST_MAX_PIXELS", "/predict", lambda: {"content": huge()}, 413, "at most 1000000"),
    ("MNIST_MAX_PIXELS", "/explain", lambda: {"content": huge()}, 413, "at most 1000000"),
    ("MNIST_MAX_PIXELS", "/predict", lambda: {"files": {"a": huge()}}, 413, "at most 1000000"),
    ("MNIST_MAX_PIXELS", "/predict", lambda: {"json": {"images": [base64.b64encode(huge()).decode()]}}, 413, "at most"),
    ("MNIST_MAX_PIXELS", INFER, lambda: binary([1], "BYTES", element()), 413, "at most 1000000"),
    ("MNIST_MAX_PIXELS", "/predict", lambda: {"content": picture("GIF", (4000, 4000))}, 413, "at most 1000000"),
    ("MNIST_MAX_IMAGES", "/predict", lambda: {"json": {"pixels": [[1] * 784] * 21}}, 413, "limit is 20"),
    ("MNIST_MAX_IMAGES", "/predict", lambda: {"json": {"images": [""] * 21}}, 413, "limit is 20"),
    ("MNIST_MAX_IMAGES", "/predict", lambda: {"content": part() * 21 + b"--x--", "headers": FORM}, 413, "20 parts"),
    ("MNIST_MAX_IMAGES", INFER, lambda: binary([21, 28, 28], "UINT8", bytes(21 * 784)), 413, "limit is 20"),
    ("MNIST_MAX_IMAGES", INFER, lambda: binary([2**61, 28, 28], "UINT8", b"1"), 413, "limit is 20"),
    ("MNIST_MAX_IMAGES", INFER, lambda: {"json": shaped([2**61, 28, 28])}, 413, "limit is 20"),
    ("MNIST_MAX_JSON_DEPTH", "/predict", lambda: {"content": b"[" * 900_000}, 400, "more than 10"),
    ("MNIST_MAX_JSON_DEPTH", INFER, lambda: {"content": b'{"a":' * 100_000}, 400, "more than 10"),
    (
        "MNIST_MAX_JSON_VALUES",
        "/predict",
        lambda: {"content": b'{"pixels":[' + b"1," * 200_000 + b"1]}"},
        413,
        "100000",
    ),
    ("MNIST_MAX_JSON_VALUES", INFER, lambda: {"content": b'{"inputs":[' + b"{}," * 100_000 + b"{}]}"}, 413, "100000"),
    (
        "MNIST_MAX_PART_HEADER_BYTES",
        "/predict",
        lambda: {"content": part("x-a: " + "a" * 400) + b"--x--", "headers": FORM},
        400,
        "malformed",
    ),
    ("MNIST_MAX_HEAD_BYTES", "/predict", lambda: {"content": b"1", "headers": {"x-a": "a" * 6000}}, 431, "5000 bytes"),
]


@pytest.fixture(scope="module")
def server(start: Start) -> Server:
    return start(**LIMITS).wait_ready()


@contextmanager
def little_memory(server: Server, most_bytes: int) -> Iterator[None]:
    (pid,) = server.worker_pids()
    before = psutil.Process(pid).memory_info().rss
    yield
    assert psutil.Process(pid).memory_info().rss - before < most_bytes


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize(("setting", "path", "sent", "status", "text"), CASES)
def test_what_is_over_a_limit_is_refused_with_a_text(
    server: Server, port: str, setting: str, path: str, sent: Callable[[], dict[str, object]], status: int, text: str
):
    options = sent()
    # Twice what a body may hold, and what the interpreter takes.
    with little_memory(server, 2 * int(LIMITS["MNIST_MAX_BODY_BYTES"]) + 3_000_000):
        started = time.process_time()
        answer = httpx.post(f"http://127.0.0.1:{getattr(server, port)}{path}", timeout=10, **options)
        assert time.process_time() - started < 2
    assert (answer.status_code, text in answer.text) == (status, True), answer.text
    assert server.get("/readyz").status_code == 200


def test_every_limit_is_met_here_or_beside():
    beside = {"MNIST_MAX_BATCH_SIZE", "MNIST_MAX_DELAY_MS", "MNIST_REQUEST_TIMEOUT_S", "MNIST_RATE_LIMIT"}
    limits = {name for name in VARIABLES if re.search(r"_MAX_|TIMEOUT|RATE", name)}
    assert limits == set(LIMITS) | beside


def connect(server: Server, port: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", getattr(server, port)), timeout=10)


def answer_of(connection: socket.socket) -> bytes:
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


@pytest.mark.parametrize("port", PORTS)
def test_slow_heads_and_slow_bodies_are_408(server: Server, port: str):
    for sent in (
        b"POST /predict HTTP/1.1\r\nhost: x",
        b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n1",
    ):
        with connect(server, port) as connection:
            connection.sendall(sent)
            assert answer_of(connection).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("port", PORTS)
def test_where_all_are_busy_one_more_connection_and_one_more_body_is_429(server: Server, port: str):
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 999999\r\n\r\n"

    def refused() -> float:
        return server.sample('mnist_rejected_total{reason="queue_full"}')

    before = refused()
    wait_until(lambda: beside(server, port, 3, head + bytes(900_000), lambda: refused() > before))
    wait_until(lambda: beside(server, port, 40, head, lambda: server_refuses(server, port)))
    wait_until(lambda: server.get("/readyz") is not None)


def beside(server: Server, port: str, count: int, sent: bytes, condition: Callable[[], bool]) -> bool:
    """Return whether a condition comes true beside connections that send this, while their bodies have time."""
    with ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(connect(server, port))
            with suppress(ConnectionError):
                connection.sendall(sent)
        return any(condition() for _ in range(10))


def server_refuses(server: Server, port: str) -> bool:
    with connect(server, port) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answer = answer_of(connection)
    return answer.startswith(b"HTTP/1.1 429 ") and b"\r\nretry-after: 1" in answer


@pytest.fixture(scope="module")
def infer(server: Server) -> Iterator[Callable[..., tuple[str, str]]]:
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

        def call(message: bytes, **metadata: str) -> tuple[str, str]:
            with pytest.raises(grpc.RpcError) as caught:
                ask(message, metadata=tuple(metadata.items()), timeout=10)
            return caught.value.code().name, caught.value.details()

        yield call


def message(shape: list[int], datatype: str, raw: bytes) -> bytes:
    tensor = pb.ModelInferRequest.InferInputTensor(name="images", datatype=datatype, shape=shape)
    return pb.ModelInferRequest(model_name="mnist-cnn", inputs=[tensor], raw_input_contents=[raw]).SerializeToString()


def test_grpc_has_the_same_limits(server: Server, infer: Callable[..., tuple[str, str]]):
    with little_memory(server, 20_000_000):
        for sent, text in (
            (bytes(1_100_000), "larger than max"),
            (message([21, 28, 28], "UINT8", bytes(21 * 784)), "limit is 20"),
            (message([2**61, 28, 28], "UINT8", b"1"), "limit is 20"),
            (message([1], "BYTES", element()), "at most 1000000"),
        ):
            code, details = infer(sent)
            assert (code, text in details) == ("RESOURCE_EXHAUSTED", True), details
        assert infer(b"", a="b" * 6000)[0] == "RESOURCE_EXHAUSTED"


def test_who_asks_too_often_is_429_on_every_port(start: Start):
    server = start(MNIST_RATE_LIMIT="2")
    wait_until(lambda: (answer := server.get("/readyz")) is not None and answer.status_code == 200)
    with httpx.Client() as client:
        for url in (server.url, server.v2_url):
            answers = [client.get(f"{url}/models") for _ in range(8)]
            assert answers[-1].status_code == 429
            assert int(answers[-1].headers["retry-after"]) >= 1
            assert client.get(f"{url}/livez").status_code == 200
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        ask = channel.unary_unary("/inference.GRPCInferenceService/ServerMetadata")
        assert "RESOURCE_EXHAUSTED" in [code_of(ask) for _ in range(8)]


def code_of(ask: Callable[..., bytes]) -> str:
    try:
        ask(b"", timeout=10)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"
