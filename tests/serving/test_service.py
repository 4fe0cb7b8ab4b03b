"""The parts of the BentoML service; tests/e2e runs it whole."""

import importlib
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from serving.errors import ConfigurationError, InvalidInput
from serving.hosted import OwnRoutes
from tests.serving.tiny_model import expected_logits, write_tiny_model
from tests.serving.v2_worker import tiny_worker


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """Return the module, with a tiny default model to be loaded; logging stays as it was."""
    models = tmp_path_factory.mktemp("models")
    write_tiny_model(models, "tiny", 1)
    root, loggers = logging.getLogger(), list(logging.getLogger().handlers)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, value in {"MNIST_MODELS": str(models), "MNIST_DEFAULT_MODEL": "tiny", "V2_PORT": "0"}.items():
            patch.setenv(name, value)
        patch.setenv("GRPC_PORT", "0")
        patch.delitem(sys.modules, "serving.service", raising=False)
        level = root.level
        yield importlib.import_module("serving.service")
    root.handlers[:] = loggers
    root.setLevel(level)


async def test_bentomls_method_reads_many_images_or_one(service: ModuleType):
    await service.hosted().worker.catalogue.start()
    images = np.random.default_rng(3).integers(0, 256, (5, 28, 28), np.uint8)
    answer = await service.hosted().classify(images)
    assert answer["digits"] == expected_logits(images).argmax(axis=1).tolist()
    assert answer["model"] == {"name": "tiny", "version": "1"}
    assert answer["accepted"] == [True] * 5
    assert (await service.hosted().classify(images[0].astype(np.int64)))["digits"] == answer["digits"][:1]


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (np.zeros((1, 28, 27), np.uint8), "expected 28 integers, got 27 values"),
        (np.zeros(783, np.uint8), "784 integers, got 783 values"),
        (np.zeros((1, 28, 28), np.float32), "integers"),
        (np.zeros((1, 28, 28), bool), "integers"),
        (np.full((1, 28, 28), 256), "0 to 255"),
        (np.full((1, 28, 28), -1), "0 to 255"),
    ],
)
async def test_bentomls_method_refuses_what_it_would_have_to_guess(service: ModuleType, images: Any, text: str):
    await service.hosted().worker.catalogue.start()
    with pytest.raises(InvalidInput, match=text):
        await service.hosted().classify(images)


async def test_bentoml_is_asked_for_its_description_alone_and_is_not_named(tmp_path: Path):
    went: list[str] = []

    async def bentoml(scope: Scope, receive: Receive, send: Send) -> None:
        went.append(scope.get("path", scope["type"]))
        if scope["type"] == "http":
            answer = PlainTextResponse("done", headers={"x-bentoml": "1", "server": "BentoML", "x-own": "1"})
            await answer(scope, receive, send)

    async with tiny_worker(tmp_path) as worker:
        routes = OwnRoutes(bentoml, worker)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(routes), base_url="http://test") as client:
            for path in ("/classify", "/predict", "/docs.json", "/"):
                await client.get(path)
                await client.post(path)
            assert (await client.post("/schema.json")).json() == {"error": "POST is not allowed at /schema.json"}
            answer = await client.get("/schema.json")
        await routes({"type": "lifespan"}, None, None)
    assert went == ["/schema.json", "lifespan"]
    assert answer.headers["x-own"] == "1"
    assert "bentoml" not in str(answer.headers).lower()


async def test_pages_that_are_listed_may_call_what_bentomls_client_calls(tmp_path: Path):
    async def bentoml(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("done")(scope, receive, send)

    origin, ask = {"origin": "https://page.example"}, {"authorization": "Bearer ask"}
    wanted = {"access-control-request-method": "POST", "access-control-request-headers": "authorization, content-type"}
    async with tiny_worker(tmp_path, cors_origins="https://page.example", token="ask") as worker:
        transport = httpx.ASGITransport(OwnRoutes(bentoml, worker))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for path, method in (("/classify", "POST"), ("/schema.json", "GET"), ("/models", "GET")):
                preflight = await client.options(path, headers=origin | wanted)
                assert (preflight.status_code, preflight.headers["access-control-allow-methods"]) == (200, "GET, POST")
                for headers, status in ((origin, 401), (origin | ask, 200)):
                    answer = await client.request(method, path, headers=headers, json={"images": []})
                    assert answer.status_code == status, path
                    assert answer.headers["access-control-allow-origin"] == origin["origin"]
                    assert "x-request-id" in answer.headers
                evil = await client.get(path, headers={"origin": "https://evil.example"} | ask)
                assert "access-control-allow-origin" not in evil.headers


def test_the_supervisor_names_what_would_make_every_worker_fail(service: ModuleType, monkeypatch: pytest.MonkeyPatch):
    service.MnistReader.inner.supervise()

    def refuse(_: object) -> None:
        raise ConfigurationError("V2_PORT=1: no")

    monkeypatch.setattr(service, "check_start", refuse)
    with pytest.raises(service.BentoMLConfigException, match="V2_PORT=1: no"):
        service.MnistReader.inner.supervise()


def test_a_wrong_setting_stops_the_import_and_is_named(service: ModuleType, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MNIST_WORKERS", "none")
    with pytest.raises(service.BentoMLConfigException, match="MNIST_WORKERS='none'"):
        service._read_settings()


def test_the_metrics_of_each_instance_have_a_folder_of_their_own(service: ModuleType):
    folder = service.BentoMLContainer.prometheus_multiproc_dir.get()
    assert folder == str(service.METRICS_FOLDER)
    assert not Path(folder).exists()


def test_the_supervisor_loads_nothing_that_only_a_worker_needs():
    code = "import sys, serving.service; print(*{'cv2', 'onnxruntime', 'grpc', 'serving.worker'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == ""


def test_a_worker_that_cannot_be_made_says_why(service: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(service, "settings", service.settings.model_copy(update={"token_file": str(tmp_path / "none")}))
    service.hosted.cache_clear()
    with pytest.raises(service.BentoMLConfigException, match="tokens cannot be read"):
        service.hosted()
