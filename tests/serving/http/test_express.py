"""What the hot path answers is what the app answers; what is not ordinary it leaves to the app."""

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from serving.access import Access
from serving.http.express import Express, is_allowed
from serving.settings import Settings
from serving.worker import Worker
from tests.serving.http.app import png
from tests.serving.v2_worker import client_of, tiny_worker

IMAGE = np.zeros((28, 28), np.uint8)
IMAGE[4:24, 10:18] = 255
INFER = "/v2/models/tiny/infer"


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    async with tiny_worker(tmp_path) as worker:
        yield worker


def tensor(count: int = 1, **changes: Any) -> dict[str, Any]:
    images = np.repeat(IMAGE[np.newaxis], count, axis=0)
    return {"name": "images", "datatype": "UINT8", "shape": [count, 28, 28], "data": images.ravel().tolist()} | changes


def numbers(count: int = 1, **changes: Any) -> bytes:
    return json.dumps({"inputs": [tensor(count)]} | changes).encode()


def binary(count: int = 1, **changes: Any) -> tuple[bytes, dict[str, str]]:
    described = tensor(count, parameters={"binary_data_size": 784 * count})
    del described["data"]
    head = json.dumps({"inputs": [described], "parameters": {"binary_data_output": True}} | changes).encode()
    return head + IMAGE.tobytes() * count, {"inference-header-content-length": str(len(head))}


def ask(worker: Worker, path: str, body: bytes, headers: dict[str, str]) -> tuple[dict[str, str], bytes] | None:
    """Return headers and content of the hot path's answer, if it gives one."""
    assert worker._express is not None
    sent = [(name.encode(), value.encode()) for name, value in headers.items()]
    answer = worker._express.answer(path.encode(), sent, body)
    if answer is None:
        return None
    head, _, content = answer.partition(b"\r\n\r\n")
    return dict(line.split(": ", 1) for line in head.decode().split("\r\n")), content


ORDINARY: dict[str, tuple[str, bytes, dict[str, str]]] = {
    "json": (INFER, numbers(), {"content-type": "application/json"}),
    "json with an id": (INFER, numbers(id="mine"), {"x-request-id": "mine:1"}),
    "one output": (INFER, numbers(outputs=[{"name": "logits", "parameters": {"classification": 3}}]), {}),
    "a version": ("/v2/models/tiny/versions/1/infer", numbers(), {}),
    "binary": (INFER, *binary()),
    "several": (INFER, *binary(5)),
    "raw": (INFER, IMAGE.tobytes(), {"inference-header-content-length": "0"}),
    "floats": (INFER, json.dumps({"inputs": [tensor(datatype="FP32", data=[(IMAGE / 255).tolist()])]}).encode(), {}),
    "packed": (INFER, numbers(8), {"accept-encoding": "gzip, deflate"}),
    "png": ("/predict", png(IMAGE), {"content-type": "image/png"}),
    "png to a model": ("/predict?model=tiny", png(IMAGE), {}),
    "pixels": ("/predict", json.dumps({"pixels": IMAGE.tolist()}).encode(), {"content-type": "application/json"}),
    "form": (
        "/predict",
        b'--x\r\ncontent-disposition: form-data; name="a"; filename="b.png"\r\n\r\n' + png(IMAGE) + b"\r\n--x--\r\n",
        {"content-type": "multipart/form-data; boundary=x"},
    ),
}


@pytest.mark.parametrize("name", ORDINARY)
async def test_an_ordinary_request_is_answered_as_the_app_answers_it(worker: Worker, name: str):
    path, body, headers = ORDINARY[name]
    answer = ask(worker, path, body, headers)
    assert answer is not None
    # httpx would ask for compression by itself.
    defaults = {"accept": "*/*", "accept-encoding": "identity"}
    expected = await client_of(worker).post(path, content=body, headers=defaults | headers)
    assert expected.status_code == 200
    unpacked = gzip.decompress(answer[1]) if "content-encoding" in answer[0] else answer[1]
    assert unpacked == expected.content
    named = dict(expected.headers)
    if "x-request-id" not in headers:
        assert len(answer[0].pop("x-request-id")) == len(named.pop("x-request-id")) == 32
    assert answer[0] == named


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/livez", b"", {}),
        ("/v2/models/none/infer", numbers(), {}),
        ("/v2/models/tiny/versions/9/infer", numbers(), {}),
        ("/v2/models/ti%6ey/infer", numbers(), {}),
        (INFER + "/", numbers(), {}),
        (INFER, b"{", {}),
        (INFER, numbers(), {"content-type": "text/plain"}),
        (INFER, gzip.compress(numbers(), mtime=0), {"content-encoding": "gzip"}),
        (INFER, numbers(), {"content-encoding": "br"}),
        (INFER, numbers(30), {}),  # takes longer to parse than others may wait
        (INFER, numbers(parameters={"timeout": 5}), {}),
        (INFER, json.dumps({"inputs": [tensor(0)]}).encode(), {}),
        (INFER, json.dumps({"inputs": [tensor(datatype="BYTES", shape=[1], data=["eA=="])]}).encode(), {}),
        (INFER, *binary(65)),
        (INFER, bytes(1 << 20), {"inference-header-content-length": "0"}),
        ("/predict", b"", {}),
        ("/predict", b"no picture", {}),
        ("/predict", png(np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)), {}),
        ("/predict", png(np.zeros((28, 28), np.uint8)), {}),
        ("/predict", json.dumps({"pixels": []}).encode(), {}),
        ("/predict?include=input", png(IMAGE), {}),
        ("/predict?model=none", png(IMAGE), {}),
    ],
)
async def test_what_is_not_ordinary_is_left_to_the_app_uncounted(
    worker: Worker, path: str, body: bytes, headers: dict[str, str]
):
    assert ask(worker, path, body, headers) is None
    value = worker.metrics.registry.get_sample_value
    assert value("mnist_batch_images_count", {"model": "tiny", "version": "1"}) == 0
    assert not [metric for metric in worker.metrics.requests.collect() for _ in metric.samples]


async def test_a_header_that_stands_twice_is_left_to_the_app(worker: Worker):
    twice = [(b"content-type", b"application/json")] * 2
    assert worker._express is not None
    assert worker._express.answer(INFER.encode(), twice, numbers()) is None


async def test_a_busy_model_or_a_server_that_stops_is_left_to_the_app(worker: Worker):
    batcher = worker.catalogue.get().batcher
    batcher._busy = True
    assert ask(worker, INFER, numbers(), {}) is None
    assert ask(worker, "/predict", png(IMAGE), {}) is None
    batcher._busy = False
    assert ask(worker, INFER, numbers(), {}) is not None
    worker.catalogue.drain()
    assert ask(worker, INFER, numbers(), {}) is None


async def test_a_body_over_the_limit_is_left_to_the_app(tmp_path: Path):
    body = numbers()
    async with tiny_worker(tmp_path, max_body_bytes=len(body)) as worker:
        assert ask(worker, INFER, body, {}) is not None
        assert ask(worker, INFER, body + b" ", {}) is None


async def test_what_is_answered_is_counted(worker: Worker):
    for _ in range(3):
        assert ask(worker, "/predict", png(IMAGE), {})
    value = worker.metrics.registry.get_sample_value
    labels = {"protocol": "http", "method": "POST", "route": "/predict", "model": "tiny", "status": "200"}
    assert value("mnist_requests_total", labels) == 3
    assert value("mnist_request_duration_seconds_count", {"protocol": "http", "route": "/predict"}) == 3
    assert value("mnist_confidence_count", {"model": "tiny"}) == 3
    for place, times in (("{model}", 1), ("{model}/versions/{version}", 2)):
        for _ in range(times):
            assert ask(worker, f"/v2/models/{place}/infer".format(model="tiny", version=1), numbers(), {})
        assert value("mnist_requests_total", labels | {"route": f"/v2/models/{place}/infer"}) == times


@pytest.mark.parametrize(
    ("switched_on", "allowed"),
    [
        ({}, True),
        ({"token": "secret"}, False),
        ({"rate_limit": 5.0}, False),
        ({"cors_origins": "https://a.example"}, False),
        ({"access_log": True}, False),
        ({"admin_token": "secret"}, True),
    ],
)
def test_what_has_to_see_every_request_closes_the_hot_path(switched_on: dict[str, Any], allowed: bool):
    settings = Settings(**switched_on)
    assert is_allowed(Access(settings), settings) == allowed


async def test_a_worker_whose_requests_are_traced_has_no_hot_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    async with tiny_worker(tmp_path) as worker:
        assert worker._express is None


async def test_an_error_of_the_model_is_found_and_told_by_the_app(worker: Worker, monkeypatch: pytest.MonkeyPatch):
    predictor = worker.catalogue.get()

    def fail(_: Any) -> Any:
        raise ValueError("secret")

    monkeypatch.setattr(predictor.batcher, "_run", fail)
    assert isinstance(worker._express, Express)
    assert ask(worker, INFER, numbers(), {}) is None
    await client_of(worker).get("/livez")
    answer: httpx.Response = await client_of(worker).post(INFER, content=numbers())
    assert (answer.status_code, answer.json()) == (500, {"error": "the model failed; the log says why"})
