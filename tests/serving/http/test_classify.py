import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest

from serving.hosted import OwnRoutes
from serving.http import classify
from serving.http.strict_json import Document
from serving.limits import Limits
from serving.worker import Worker
from tests.serving.tiny_model import expected_logits
from tests.serving.v2_worker import tiny_worker

JSON = {"content-type": "application/json"}
BLANK = np.zeros((28, 28), int).tolist()


class Port(NamedTuple):
    """PORT without BentoML behind it."""

    worker: Worker
    client: httpx.AsyncClient

    def value(self, name: str, **labels: str) -> float:
        return self.worker.metrics.registry.get_sample_value(f"mnist_{name}", labels) or 0.0

    def counted(self, path: str, status: int) -> float:
        self.worker.metrics.tallies.write()
        labels = {"protocol": "http", "method": "POST", "route": path, "model": "tiny", "status": str(status)}
        return self.value("requests_total", **labels)


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[Port]:
    limits = {"max_images": 10, "max_json_depth": 10, "max_body_bytes": 100_000}
    async with tiny_worker(tmp_path, **limits) as worker:
        transport = httpx.ASGITransport(OwnRoutes(worker.app, worker))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield Port(worker, client)


async def test_many_images_or_one_are_read(port: Port):
    images = np.random.default_rng(3).integers(0, 256, (5, 28, 28), np.uint8)
    logits = expected_logits(images)
    answer = (await port.client.post("/classify", json={"images": images.tolist()})).json()
    assert answer["model"] == {"name": "tiny", "version": "1"}
    assert answer["digits"] == logits.argmax(axis=1).tolist()
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(answer["probabilities"], probabilities, atol=1e-5)
    np.testing.assert_allclose(answer["confidences"], probabilities.max(axis=1), atol=1e-5)
    assert answer["accepted"] == [True] * 5
    one = await port.client.post("/classify", json={"images": images[0].tolist()})
    assert one.json()["digits"] == answer["digits"][:1]
    assert (await port.client.post("/classify", json={"images": []})).json()["digits"] == []
    assert port.counted("/classify", 200) == 3


@pytest.mark.parametrize(
    ("pixels", "status", "reason"),
    [
        ([BLANK] * 11, 413, "too_large"),
        ([[[[[[[[[[[[]]]]]]]]]]]], 400, "invalid"),
        (5, 400, "invalid"),
        ("http://elsewhere.example/", 400, "invalid"),
        (np.zeros((2, 28, 27), int).tolist(), 400, "invalid"),
        (np.full((1, 28, 28), 0.5).tolist(), 400, "invalid"),
        (np.full((1, 28, 28), 256).tolist(), 400, "invalid"),
        (np.full((1, 28, 28), True).tolist(), 400, "invalid"),
    ],
)
async def test_what_predict_refuses_is_refused_and_counted_alike(port: Port, pixels: Any, status: int, reason: str):
    answers = []
    for path, key in (("/predict", "pixels"), ("/classify", "images")):
        before = port.value("rejected_total", reason=reason)
        answers.append(await port.client.post(path, json={key: pixels}))
        assert answers[-1].status_code == status
        assert port.counted(path, status) == 1
        assert port.value("rejected_total", reason=reason) == before + 1
    assert answers[0].json() == answers[1].json()


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{}", {}, 415),
        (b"{}", {"content-type": "application/vnd.bentoml+pickle"}, 415),
        (b"{}", {"content-type": "multipart/form-data; boundary=x"}, 415),
        (b"{}", JSON | {"content-encoding": "gzip"}, 415),
        (b"{", JSON, 400),
        (b"{}", JSON, 400),
        (b'{"images": [], "more": []}', JSON, 400),
        (b'{"images": [], "images": []}', JSON, 400),
        (b'"' + b"a" * 100_000 + b'"', JSON, 413),
        (b'{"images":  []}', {"content-type": "Application/JSON; charset=utf-8", "content-encoding": "Identity"}, 200),
    ],
)
async def test_one_kind_of_body_is_read(port: Port, content: bytes, headers: dict[str, str], status: int):
    answer = await port.client.post("/classify", content=content, headers=headers)
    assert answer.status_code == status
    assert status == 200 or list(answer.json()) == ["error"]


async def test_a_large_body_is_parsed_beside_the_event_loop(port: Port, monkeypatch: pytest.MonkeyPatch):
    threads, read_json = [], classify.read_json

    def note(body: bytes, limits: Limits) -> Document:
        threads.append(threading.current_thread().name)
        return read_json(body, limits)

    monkeypatch.setattr(classify, "read_json", note)
    large = json.dumps({"images": np.full((10, 28, 28), 100).tolist()}, indent=1)
    small = json.dumps({"images": BLANK})
    answers = [await port.client.post("/classify", content=body, headers=JSON) for body in (small, large)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert threads == [threading.main_thread().name, "heavy_0"]


async def test_who_waits_beyond_the_time_of_a_request_is_504(tmp_path: Path):
    async with tiny_worker(tmp_path, request_timeout_s=1e-9) as worker:
        app = OwnRoutes(worker.app, worker)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            assert (await client.post("/classify", json={"images": [BLANK]})).status_code == 504
