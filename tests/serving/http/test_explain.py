import asyncio
import base64
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.explain import LayeredModel
from serving.http import explain
from serving.preprocess import prepare
from serving.runtime import Outputs
from tests.serving.http.app import App, png
from tests.serving.layered_model import expected_layers, seven, weights, write_layered_model
from tests.serving.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("layered")
    write_layered_model(root, "tiny")
    write_tiny_model(root, "closed")
    return root


@pytest.fixture
async def app(models: Path, executor: ThreadPoolExecutor) -> AsyncIterator[App]:
    made = App(models, executor)
    await made.catalogue.start()
    async with made.client:
        yield made


def values(tensor: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(tensor["data"]), "<f4").reshape(tensor["shape"])


async def test_the_kernels_are_described_and_kept_by_the_browser(app: App):
    answer = await app.client.get("/explain")
    content = answer.json()
    assert content["model"] == {"name": "tiny", "version": "1"}
    assert [layer["name"] for layer in content["layers"]] == list(expected_layers(seven()))
    np.testing.assert_array_equal(values(content["kernels"]["conv.weight"]), weights()["conv.weight"])
    again = await app.client.get("/explain", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_the_kernels_are_written_once_however_many_ask(app: App, monkeypatch: pytest.MonkeyPatch):
    written, tensor = [], explain._tensor

    def note(kernel: np.ndarray) -> dict[str, object]:
        written.append(kernel.shape)
        return tensor(kernel)

    monkeypatch.setattr(explain, "_tensor", note)
    answers = await asyncio.gather(*(app.client.get("/explain") for _ in range(3)))
    answers.append(await app.client.get("/explain"))
    assert len({answer.content for answer in answers}) == 1
    assert len(written) == len(answers[0].json()["kernels"])


@pytest.mark.parametrize("body", ["png", "pixels"])
async def test_every_layer_of_a_picture_is_what_numpy_computes(app: App, body: str):
    image = seven()
    sent = {"content": png(image)} if body == "png" else {"json": {"pixels": image.tolist()}}
    answer = await app.client.post("/explain", **sent)
    content = answer.json()
    seen = prepare(png(image)).image if body == "png" else image
    assert content["pixels"] == seen.tolist()
    assert "occlusion" not in content
    for name, expected in expected_layers(seen).items():
        np.testing.assert_allclose(values(content["layers"][name]), expected, atol=1e-4, err_msg=name)


async def test_the_occlusion_map_is_what_the_model_says_of_covered_drawings(app: App):
    image = seven()
    answer = await app.client.post("/explain?include=occlusion,layers", json={"pixels": image.tolist()})
    content = answer.json()
    assert content["layers"].keys() == expected_layers(image).keys()
    found = values(content["occlusion"]["map"])
    covered = image.copy()
    covered[4:9, 10:15] = 0
    logits = expected_layers(covered)["linear"]
    np.testing.assert_allclose(found[6, 12], np.exp(logits) / np.exp(logits).sum(), atol=1e-4)
    np.testing.assert_allclose(found[27, 0], content["occlusion"]["probabilities"], atol=1e-6)


async def test_covered_drawings_do_not_count_as_predictions(app: App):
    await app.client.post("/explain?include=occlusion", content=png(seven()))
    counted = [app.value("predictions_total", model="tiny", version="1", digit=str(digit)) for digit in range(10)]
    assert not any(counted)


@pytest.mark.parametrize(
    ("method", "query", "content", "status", "message"),
    [
        ("POST", "?include=kernels", b"x", 400, "include: expected layers or occlusion or both, got 'kernels'"),
        ("POST", "?depth=1", b"x", 400, "unknown parameter 'depth'; there are: include, model, version"),
        ("GET", "?include=layers", None, 400, "unknown parameter 'include'; there are: model, version"),
        ("POST", "", b"no picture", 422, None),
        ("POST", "", b'{"images": []}', 400, "expected one picture, got none"),
        ("POST", "", b'{"images": ["", ""]}', 413, "images: 2 of them, the limit is 1"),
        ("GET", "?model=closed", None, 501, "closed version 1 was published without layers.onnx"),
        ("POST", "?model=nobody", b"x", 404, None),
    ],
)
async def test_what_cannot_be_explained_is_said(
    app: App, method: str, query: str, content: bytes | None, status: int, message: str | None
):
    answer = await app.client.request(method, f"/explain{query}", content=content)
    assert answer.status_code == status
    assert answer.json()["error"] == message or message is None


async def test_a_packed_picture_is_refused_as_by_predict(app: App):
    for coding, status in {"gzip": 415, "Identity": 200}.items():
        sent = {"content": png(seven()), "headers": {"content-encoding": coding}}
        explained, predicted = [await app.client.post(path, **sent) for path in ("/explain", "/predict")]
        assert (explained.status_code, predicted.status_code) == (status, status)
        assert explained.json().get("error") == predicted.json().get("error")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_what_is_not_allowed_is_told_all_that_is(app: App, method: str):
    answer = await app.client.request(method, "/explain")
    assert (answer.status_code, answer.json()) == (405, {"error": f"{method} is not allowed at /explain"})
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}
    assert (await app.client.head("/explain")).status_code == 200


async def test_a_setting_switches_it_off(models: Path, executor: ThreadPoolExecutor):
    made = App(models, executor, explain=False)
    await made.catalogue.start()
    answer = await made.client.post("/explain", content=png(seven()))
    assert answer.status_code == 501
    assert answer.json() == {"error": "explanations are switched off here; MNIST_EXPLAIN=true switches them on"}
    assert (await made.client.get("/models")).json()["explain"] is False


async def test_more_explanations_than_there_is_room_for_are_refused(app: App, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(explain, "MAX_WAITING", 0)
    answer = await app.client.post("/explain", content=png(seven()))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert (await app.client.post("/explain?include=occlusion", content=png(seven()))).status_code == 200


async def test_who_waits_for_the_layers_beyond_the_time_of_a_request_is_504(
    models: Path, executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
):
    app = App(models, executor, request_timeout_s=2.0)
    await app.catalogue.start()
    go_on = threading.Event()
    sent = {"json": {"pixels": seven().tolist()}}
    assert (await app.client.post("/explain", **sent)).status_code == 200
    with monkeypatch.context() as patch:
        patch.setattr(LayeredModel, "run", lambda *_: go_on.wait(20))
        late = await asyncio.gather(*(app.client.post("/explain", **sent) for _ in range(2)))
        go_on.set()
    assert [answer.status_code for answer in late] == [504, 504]
    assert late[0].json() == {"error": "the deadline passed before the layers were run"}
    assert app.value("rejected_total", reason="deadline") == 2
    assert (await app.client.post("/explain", **sent)).status_code == 200


@pytest.mark.parametrize("queue_size", [2, 128, 129])
async def test_the_covers_fit_any_queue(app: App, models: Path, executor: ThreadPoolExecutor, queue_size: int):
    small = App(models, executor, queue_size=queue_size, max_images=1)
    await small.catalogue.start()
    image = np.full((28, 28), 255, np.uint8)
    image[3:9, 4:20] = 90
    content = {"pixels": image.tolist()}
    expected, answer = [(await each.client.post("/explain?include=occlusion", json=content)) for each in (app, small)]
    assert (expected.status_code, answer.status_code) == (200, 200)
    found, whole = (values(each.json()["occlusion"]["map"]) for each in (answer, expected))
    np.testing.assert_allclose(found, whole, atol=1e-6)


async def test_covers_leave_half_the_queue_to_others(
    models: Path, executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
):
    app = App(models, executor, queue_size=100, max_images=1)
    await app.catalogue.start()
    batcher, sizes = app.catalogue.get().batcher, []
    submit = batcher.submit

    async def note(images: np.ndarray, deadline: float | None = None) -> Outputs:
        sizes.append(len(images))
        return await submit(images, deadline)

    monkeypatch.setattr(batcher, "submit", note)
    await app.client.post("/explain?include=occlusion", json={"pixels": [255] * 784})
    assert sizes == [50] * 15 + [35]
