import asyncio
import base64
import gzip
import json
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from serving.errors import InvalidInput
from serving.http import v2
from serving.http.strict_json import Document
from tests.serving.tiny_model import expected_logits
from tests.serving.v2_worker import TOKEN, client_of, picture, tiny_worker

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 28, 28), np.uint8)
INFER = "/v2/models/tiny/infer"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with tiny_worker(tmp_path, max_body_bytes=100_000) as worker, client_of(worker) as client:
        yield client


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with tiny_worker(tmp_path, admin_token=TOKEN) as worker, client_of(worker) as client:
        yield client


def body(**changes: Any) -> dict[str, Any]:
    data = IMAGES.ravel().tolist()
    return {"inputs": [{"name": "images", "shape": [2, 28, 28], "datatype": "UINT8", "data": data}]} | changes


def logits_of(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    (output,) = (output for output in answer.json()["outputs"] if output["name"] == "logits")
    return np.array(output["data"], np.float32).reshape(output["shape"])


async def test_digits_are_read_with_and_without_a_version(client: httpx.AsyncClient):
    for path in (INFER, "/v2/models/tiny/versions/1/infer"):
        answer = await client.post(path, json=body(id="mine"))
        assert np.allclose(logits_of(answer), expected_logits(IMAGES), atol=1e-5)
        assert answer.json()["model_name"] == "tiny"
        assert answer.json()["model_version"] == "1"
        assert answer.json()["id"] == "mine"


async def test_case_e09_an_unknown_model_or_version_is_404(client: httpx.AsyncClient):
    for path in ("/v2/models/none/infer", "/v2/models/tiny/versions/999/infer", "/v2/models/tiny/versions/x/infer"):
        answer = await client.post(path, json=body())
        assert answer.status_code == 404
        assert set(answer.json()) == {"error"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", INFER, 405),
        ("PUT", "/v2", 405),
        ("POST", f"{INFER}/", 404),
        ("GET", "/v2/", 404),
        ("GET", "/v2/models/%2e%2e", 404),
        ("GET", "/v2/models/..%2f..%2fetc/ready", 404),
        ("GET", "/v2/models/none", 404),
        ("GET", "/v2/models/none/config", 404),
        ("GET", "/v2/models/none/stats", 404),
        ("GET", "/v2/models/none/ready", 404),
        ("GET", "/v2/nothing", 404),
        ("POST", "/v2/logging", 404),
        ("GET", "/v2/systemsharedmemory/status", 404),
    ],
)
async def test_case_e15_what_is_not_there_is_json_all_the_same(
    client: httpx.AsyncClient, method: str, path: str, status: int
):
    answer = await client.request(method, path)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize(
    "media_type",
    [
        "text/plain",
        "application/vnd.bentoml+pickle",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
    ],
)
async def test_case_h02_other_media_types_are_415(client: httpx.AsyncClient, media_type: str):
    answer = await client.post(INFER, content=json.dumps(body()), headers={"content-type": media_type})
    assert answer.status_code == 415
    assert "expected application/json or application/octet-stream" in answer.json()["error"]


@pytest.mark.parametrize(
    "media_type", ["application/json", "Application/JSON; charset=utf-8", "application/octet-stream"]
)
async def test_json_is_read_under_the_types_that_clients_send(client: httpx.AsyncClient, media_type: str):
    answer = await client.post(INFER, content=json.dumps(body()), headers={"content-type": media_type})
    assert logits_of(answer).shape == (2, 10)


async def test_without_a_media_type_json_is_read(client: httpx.AsyncClient):
    answer = await client.post(INFER, content=json.dumps(body()))
    assert logits_of(answer).shape == (2, 10)


async def test_pickles_are_never_opened(client: httpx.AsyncClient, tmp_path: Path):
    marker = tmp_path / "opened"
    pickled = f"cposix\nsystem\n(S'touch {marker}'\ntR.".encode()
    for headers in ({}, {"payload-container": "NdarrayContainer"}, {"content-type": "application/octet-stream"}):
        answer = await client.post(INFER, content=pickled, headers=headers)
        assert answer.status_code == 400
    assert not marker.exists()


async def test_a_raw_body_gets_a_binary_answer(client: httpx.AsyncClient):
    answer = await client.post(INFER, content=IMAGES[0].tobytes(), headers={"inference-header-content-length": "0"})
    assert answer.status_code == 200
    length = int(answer.headers["inference-header-content-length"])
    logits = np.frombuffer(answer.content[length : length + 40], "<f4")
    assert np.allclose(logits, expected_logits(IMAGES[:1])[0], atol=1e-5)


async def test_case_c10_an_empty_batch_is_answered(client: httpx.AsyncClient):
    empty = {"name": "images", "shape": [0, 1, 28, 28], "datatype": "FP32", "data": []}
    answer = await client.post(INFER, json={"inputs": [empty]})
    assert answer.status_code == 200
    assert [(each["shape"], each["data"]) for each in answer.json()["outputs"]] == [([0, 10], []), ([0, 10], [])]


async def test_case_e07_pictures_are_prepared(client: httpx.AsyncClient):
    raw = [picture(255 - np.pad(np.full((12, 4), 255, np.uint8), 8)), b"no picture"]
    blobs = b"".join(len(each).to_bytes(4, "little") + each for each in raw)
    for count, status in ((1, 200), (2, 400)):
        size = len(blobs) if count == 2 else len(blobs) - 14
        tensor = {"name": "images", "shape": [count], "datatype": "BYTES", "parameters": {"binary_data_size": size}}
        head = json.dumps({"inputs": [tensor]}).encode()
        headers = {"inference-header-content-length": str(len(head))}
        answer = await client.post(INFER, content=head + blobs[:size], headers=headers)
        assert answer.status_code == status, answer.text
    assert "element 1: " in answer.json()["error"]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_large_answer_is_compressed_for_who_takes_it(client: httpx.AsyncClient, encoding: str):
    tensor = {"name": "images", "shape": [20, 28, 28], "datatype": "UINT8", "data": [0] * 20 * 784}
    answer = await client.post(INFER, json={"inputs": [tensor]}, headers={"accept-encoding": encoding})
    assert answer.headers["content-encoding"] == encoding
    assert logits_of(answer).shape == (20, 10)
    plain = await client.post(INFER, json={"inputs": [tensor]}, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers


async def test_a_compressed_body_is_unpacked_within_the_limit(client: httpx.AsyncClient):
    headers = {"content-encoding": "gzip"}
    answer = await client.post(INFER, content=gzip.compress(json.dumps(body()).encode()), headers=headers)
    assert logits_of(answer).shape == (2, 10)
    bomb = await client.post(INFER, content=gzip.compress(bytes(10_000_000)), headers=headers)
    assert bomb.status_code == 413
    other = await client.post(INFER, content=b"x", headers={"content-encoding": "br"})
    assert other.status_code == 415


async def test_no_body_is_unpacked_while_another_is_held_unpacked(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    done: list[str] = []

    def noted(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def do(*given: Any) -> Any:
            done.append(name)
            return work(*given)

        return do

    for name in ("unpack", "read_request"):
        monkeypatch.setattr(v2, name, noted(name, getattr(v2, name)))
    packed = gzip.compress(json.dumps(body()).encode())
    posts = [client.post(INFER, content=packed, headers={"content-encoding": "gzip"}) for _ in range(20)]
    assert {answer.status_code for answer in await asyncio.gather(*posts)} == {200}
    assert done == ["unpack", "read_request"] * 20


async def test_pictures_that_were_unpacked_take_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    answer = asyncio.Event()

    async def wait(*_: Any) -> None:
        await answer.wait()
        raise InvalidInput("answered")

    tensor = {"name": "images", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(bytes(70_000)).decode()]}
    packed, headers = gzip.compress(json.dumps({"inputs": [tensor]}).encode()), {"content-encoding": "gzip"}
    limits = {"max_body_bytes": 100_000, "max_pending_bytes": 100_000}
    async with tiny_worker(tmp_path, **limits) as worker, client_of(worker) as client:
        monkeypatch.setattr(worker.inference, "run", wait)
        first = asyncio.ensure_future(client.post(INFER, content=packed, headers=headers))
        while worker.bodies.pending < 70_000:
            await asyncio.sleep(0.001)
        second = await client.post(INFER, content=packed, headers=headers)
        assert (second.status_code, second.headers["retry-after"]) == (429, "1")
        answer.set()
        assert (await first).json() == {"error": "answered"}


async def test_options_are_taken_as_they_are_and_large_ones_are_parsed_beside_the_event_loop(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    threads, read = list[int](), v2.read_json

    def noted(*given: Any) -> Document:
        threads.append(threading.get_ident())
        return read(*given)

    monkeypatch.setattr(v2, "read_json", noted)
    for size in (10, 20_000):
        assert (await client.post("/v2/repository/index", json={"other": [1] * size})).status_code == 200
    assert [thread == threading.get_ident() for thread in threads] == [True, False]
    packed = await client.post(
        "/v2/repository/index", content=gzip.compress(b"{}"), headers={"content-encoding": "gzip"}
    )
    assert packed.status_code == 415


async def test_health_has_the_keys_that_clients_read(client: httpx.AsyncClient):
    assert (await client.get("/v2/health/live")).json() == {"live": True}
    assert (await client.get("/v2/health/ready")).json() == {"ready": True}
    assert (await client.get("/v2/models/tiny/versions/1/ready")).json() == {"name": "tiny", "ready": True}


async def test_case_d10_a_draining_worker_is_not_ready_but_answers(tmp_path: Path):
    async with tiny_worker(tmp_path) as worker, client_of(worker) as client:
        worker.catalogue.drain()
        for path, answered in (
            ("/v2/health/ready", {"ready": False}),
            ("/v2/models/tiny/ready", {"name": "tiny", "ready": False}),
        ):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()) == (503, answered)
        assert (await client.get("/v2/health/live")).status_code == 200
        assert (await client.post(INFER, json=body())).status_code == 200


async def test_the_server_and_its_models_describe_themselves(client: httpx.AsyncClient):
    server = (await client.get("/v2")).json()
    assert server["name"] == "mnist-reader"
    assert "model_repository" not in server["extensions"]
    model = (await client.get("/v2/models/tiny")).json()
    assert model["versions"] == ["1"]
    assert model["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 28, 28]}]
    assert [each["shape"] for each in model["outputs"]] == [[-1, 10], [-1, 10]]
    assert model["properties"]["execution_provider"] == "CPUExecutionProvider"
    config = (await client.get("/v2/models/tiny/versions/1/config")).json()
    assert (config["name"], config["backend"], config["max_batch_size"]) == ("tiny", "onnxruntime", 64)
    assert config["input"] == [{"name": "images", "data_type": "TYPE_UINT8", "dims": [28, 28]}]


async def test_statistics_count_requests_images_and_batches(client: httpx.AsyncClient):
    for _ in range(3):
        await client.post(INFER, json=body())
    for path in ("/v2/models/tiny/stats", "/v2/models/tiny/versions/1/stats", "/v2/models/stats"):
        (model,) = (await client.get(path)).json()["model_stats"]
        assert (model["name"], model["version"]) == ("tiny", "1")
        assert (model["inference_count"], model["execution_count"]) == (6, 3)
        assert model["inference_stats"]["success"]["count"] == 3
        assert model["inference_stats"]["fail"]["count"] == 0
        assert model["inference_stats"]["compute_infer"]["ns"] > 0
        assert model["last_inference"] > 0


async def test_a_timeout_that_is_over_is_504_and_counts_as_failed(client: httpx.AsyncClient):
    answer = await client.post(INFER, json=body(parameters={"timeout": 1}))
    assert answer.status_code == 504
    (model,) = (await client.get("/v2/models/tiny/stats")).json()["model_stats"]
    assert model["inference_stats"]["fail"]["count"] == 1


async def test_the_index_lists_every_version(client: httpx.AsyncClient):
    expected = [{"name": "tiny", "version": "1", "state": "READY", "reason": ""}]
    for content in (b"", b"{}", b'{"ready": true}'):
        assert (await client.post("/v2/repository/index", content=content)).json() == expected
    assert (await client.post("/v2/repository/index", content=b'{"ready": 1}')).status_code == 400
    assert (await client.post("/v2/repository/index", content=b"[]")).status_code == 400


@pytest.mark.parametrize("call", ["load", "unload"])
async def test_case_h06_without_a_token_nobody_loads_or_unloads(client: httpx.AsyncClient, call: str):
    answer = await client.post(f"/v2/repository/models/tiny/{call}", headers={"authorization": "Bearer "})
    assert answer.status_code == 404


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer x", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}\u00e9"])
@pytest.mark.parametrize("call", ["load", "unload"])
async def test_case_h06_a_wrong_token_is_401(admin: httpx.AsyncClient, call: str, given: str):
    headers = {"authorization": given.encode()} if given else {}
    answer = await admin.post(f"/v2/repository/models/tiny/{call}", headers=headers)
    assert answer.status_code == 401
    assert (await admin.get("/v2/models/tiny/ready")).status_code == 200


async def test_with_the_token_a_model_is_unloaded_and_loaded(admin: httpx.AsyncClient):
    headers = {"authorization": f"Bearer {TOKEN}"}
    assert "model_repository" in (await admin.get("/v2")).json()["extensions"]
    assert (await admin.post("/v2/repository/models/tiny/unload", json={}, headers=headers)).status_code == 200
    assert (await admin.get("/v2/models/tiny/ready")).json() == {"name": "tiny", "ready": False}
    assert (await admin.post(INFER, json=body())).status_code == 503
    assert (await admin.post("/v2/repository/models/tiny/load", json={}, headers=headers)).status_code == 200
    assert (await admin.post(INFER, json=body())).status_code == 200
    assert (await admin.post("/v2/repository/models/none/load", headers=headers)).status_code == 404


async def test_a_load_brings_no_files_of_its_own(admin: httpx.AsyncClient):
    overrides = {"parameters": {"config": "{}", "file:1/model.onnx": "AAAA"}}
    headers = {"authorization": f"Bearer {TOKEN}"}
    answer = await admin.post("/v2/repository/models/tiny/load", json=overrides, headers=headers)
    assert answer.status_code == 501
