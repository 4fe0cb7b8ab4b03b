import asyncio
import gc
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest

from serving.errors import ConfigurationError
from serving.settings import Settings
from serving.worker import Worker
from tests.serving.tiny_model import write_tiny_model


@pytest.fixture
def signals() -> Iterator[list[int]]:
    """Stand in for the server whose signals a worker takes; return what it is handed."""
    received: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers[:2]:
        signal.signal(number, lambda number, _: received.append(number))
    yield received
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def collector() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_tiny_model(tmp_path, "tiny", 1)
    return tmp_path


@pytest.fixture
async def worker(models: Path, free_port: int, signals: list[int], collector: None) -> AsyncIterator[Worker]:
    settings = Settings(
        models=models, default_model="tiny", host="127.0.0.1", v2_port=free_port, grpc_port=0, drain_s=0, threads=1
    )
    made = Worker(settings)
    await made.start()
    yield made
    await made.stop()


async def wait_until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def test_it_is_alive_at_once_and_ready_when_the_models_are(worker: Worker):
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{worker.settings.v2_port}") as client:
        await wait_until(lambda: worker.catalogue.ready)
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.post("/predict", json={"pixels": [1] * 784})).status_code == 200
    assert worker.metrics.registry.get_sample_value("mnist_workers") == 1
    assert worker.metrics.registry.get_sample_value("mnist_configured_workers") == worker.settings.workers
    assert worker.metrics.registry.get_sample_value("mnist_resident_memory_bytes") > 10_000_000
    assert gc.get_freeze_count() > 0


async def test_sighup_loads_a_new_version(worker: Worker, models: Path):
    await wait_until(lambda: worker.catalogue.ready)
    write_tiny_model(models, "tiny", 2)
    os.kill(os.getpid(), signal.SIGHUP)
    await wait_until(lambda: worker.catalogue.get().version == "2")


def reloads_in_memory() -> list[asyncio.Task[object]]:
    tasks = [each for each in gc.get_objects() if isinstance(each, asyncio.Task)]
    return [each for each in tasks if each.get_coro().__name__ == "_reload"]


async def test_reloads_that_are_over_leave_nothing(worker: Worker, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    await wait_until(lambda: worker.catalogue.ready)
    for times in range(1, 6):
        os.kill(os.getpid(), signal.SIGHUP)
        await wait_until(lambda times=times: caplog.text.count("reloading the models") == times)
    await wait_until(lambda: not reloads_in_memory())


async def test_sigterm_drains_and_then_reaches_the_server_once(worker: Worker, signals: list[int]):
    await wait_until(lambda: worker.catalogue.ready)
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    await wait_until(lambda: worker.catalogue.draining)
    assert not worker.catalogue.ready
    await wait_until(lambda: signals)
    await asyncio.sleep(0.05)
    assert signals == [signal.SIGTERM]
    assert worker.metrics.registry.get_sample_value("mnist_workers") == 0


async def test_its_heart_beats_from_the_run_that_has_not_come_back(worker: Worker, monkeypatch: pytest.MonkeyPatch):
    await wait_until(lambda: worker.catalogue.ready)
    beats: list[float] = []
    monkeypatch.setattr(worker._heartbeat, "beat", beats.append)
    now = time.monotonic()
    await wait_until(lambda: beats and beats[-1] >= now)
    monkeypatch.setattr(worker.catalogue.get().batcher, "_running_since", 12.5)
    await wait_until(lambda: beats[-1] == 12.5)


@pytest.mark.parametrize("error", [OSError("no descriptor left"), ZeroDivisionError("of nothing")])
async def test_what_cannot_be_measured_once_is_measured_later(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
):
    def fail() -> int:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(worker._memory, "look", fail)
        await wait_until(lambda: f"not measured: {error}" in caplog.text)
    worker.metrics.resident_memory.set(0)
    await wait_until(lambda: worker.metrics.registry.get_sample_value("mnist_resident_memory_bytes"))


async def test_what_cannot_be_refreshed_stops_no_other_care(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail() -> None:
        raise ValueError("no such thing")

    followed = asyncio.Event()

    async def follow() -> None:
        followed.set()

    await wait_until(lambda: worker.catalogue.ready)
    monkeypatch.setattr(worker.access, "refresh", fail)
    await wait_until(lambda: "not refreshed: no such thing" in caplog.text)
    monkeypatch.setattr(worker.catalogue, "follow", follow)
    await asyncio.wait_for(followed.wait(), 20)


async def test_it_stops_when_its_supervisor_is_gone(
    worker: Worker, signals: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    await wait_until(lambda: worker.catalogue.ready)
    monkeypatch.setattr(os, "getppid", lambda: 1)
    await wait_until(lambda: signals)
    assert signals == [signal.SIGTERM]
    assert "the supervising process is gone" in caplog.text


@pytest.mark.parametrize(("error", "unknown"), [(OSError("disk gone"), False), (ZeroDivisionError("of it"), True)])
async def test_a_reload_that_fails_is_logged_and_what_was_served_goes_on(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, unknown: bool
):
    await wait_until(lambda: worker.catalogue.ready)

    def fail() -> list[str]:
        raise error

    monkeypatch.setattr(worker.catalogue.repository, "names", fail)
    os.kill(os.getpid(), signal.SIGHUP)
    await wait_until(lambda: f"could not be reloaded: {error}" in caplog.text)
    assert ("Traceback" in caplog.text) == unknown
    assert worker.catalogue.ready


async def test_models_that_cannot_be_loaded_leave_it_alive_but_not_ready(
    models: Path, signals: list[int], collector: None, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    settings = Settings(models=models, default_model="tiny", v2_port=0, grpc_port=0, device="cuda")
    worker = Worker(settings)
    await worker.start()
    await wait_until(lambda: "could not be loaded" in caplog.text)
    assert not worker.catalogue.ready
    await worker.stop()


def test_each_listener_has_a_port_or_is_off(models: Path):
    assert len(Worker(Settings(models=models))._listeners) == 2
    assert len(Worker(Settings(models=models, v2_port=0))._listeners) == 1
    assert len(Worker(Settings(models=models, v2_port=0, grpc_port=0))._listeners) == 0


def test_a_worker_that_cannot_begin_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    with pytest.raises(ConfigurationError):
        Worker(Settings(models=tmp_path, token_file=str(tmp_path / "absent")))
    assert list(tmp_path.iterdir()) == []
