"""The parts of the BentoML service; tests/e2e runs it whole."""

import importlib
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import numpy as np
import pytest
from pydantic import BaseModel, ValidationError
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from serving.errors import ConfigurationError, InvalidInput
from serving.hosted import OwnRoutes, check
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


async def test_classify_reads_many_images_or_one(service: ModuleType):
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
        (np.zeros((1, 28, 27), np.uint8), "shape"),
        (np.zeros(784, np.uint8), "shape"),
        (np.zeros((1, 28, 28), np.float32), "integers"),
        (np.zeros((1, 28, 28), bool), "integers"),
        (np.full((1, 28, 28), 256), "0 to 255"),
        (np.full((1, 28, 28), -1), "0 to 255"),
    ],
)
def test_classify_refuses_what_it_would_have_to_guess(images: Any, text: str):
    with pytest.raises(InvalidInput, match=text):
        check(images)


async def test_only_bentomls_own_paths_go_through_bentoml(service: ModuleType):
    went: list[tuple[str, str]] = []

    async def bentoml(scope: dict[str, Any], receive: object, send: object) -> None:
        went.append(("bentoml", scope.get("path", scope["type"])))

    async def own(scope: dict[str, Any], receive: object, send: object) -> None:
        went.append(("own", scope["path"]))

    routes = OwnRoutes(bentoml, service.hosted().worker)
    routes._own = own
    for path in ("/classify", "/schema.json", "/predict", "/docs.json", "/"):
        await routes({"type": "http", "path": path, "method": "GET", "headers": []}, None, None)
    await routes({"type": "lifespan"}, None, None)
    assert [path for whose, path in went if whose == "bentoml"] == ["/classify", "/schema.json", "lifespan"]


async def test_pages_that_are_listed_may_call_what_bentoml_answers(tmp_path: Path):
    async def bentoml(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("done")(scope, receive, send)

    origin, ask = {"origin": "https://page.example"}, {"authorization": "Bearer ask"}
    wanted = {"access-control-request-method": "POST", "access-control-request-headers": "authorization, content-type"}
    async with tiny_worker(tmp_path, cors_origins="https://page.example", token="ask") as worker:
        transport = httpx.ASGITransport(OwnRoutes(bentoml, worker))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for path in ("/classify", "/schema.json", "/models"):
                preflight = await client.options(path, headers=origin | wanted)
                assert (preflight.status_code, preflight.headers["access-control-allow-methods"]) == (200, "GET, POST")
                for headers, status in ((origin, 401), (origin | ask, 200)):
                    answer = await client.get(path, headers=headers)
                    assert answer.status_code == status, path
                    assert answer.headers["access-control-allow-origin"] == origin["origin"]
                    assert "x-request-id" in answer.headers
                evil = await client.get(path, headers={"origin": "https://evil.example"} | ask)
                assert "access-control-allow-origin" not in evil.headers


def test_tracebacks_are_kept_for_our_own_faults(service: ModuleType):
    class Number(BaseModel):
        value: int

    def kept(error: Exception) -> bool:
        return service._is_not_the_clients_fault(logging.makeLogRecord({"exc_info": (type(error), error, None)}))

    with pytest.raises(ValidationError) as invalid:
        Number(value="x")
    bad = service.BentoMLException("bad", error_code=HTTPStatus.BAD_REQUEST)
    assert (kept(invalid.value), kept(bad)) == (False, False)
    assert (kept(service.BentoMLException("ours")), kept(ValueError())) == (True, True)
    assert service._is_not_the_clients_fault(logging.makeLogRecord({}))


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
