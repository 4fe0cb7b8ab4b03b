import base64
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.http import explain
from serving.preprocess import prepare
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
