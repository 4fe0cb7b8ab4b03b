"""Workers that die, stop or get stuck: what clients see, and how long the instance takes to be whole again."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Start
from tests.e2e.load import Load
from tests.e2e.server import Server, wait_until
from tests.serving.tiny_model import write_tiny_model

WATCHDOG_S = 3.0

Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def server(start: Start) -> Server:
    return start(MNIST_WORKERS="2", MNIST_WATCHDOG_S=str(WATCHDOG_S), MNIST_REQUEST_TIMEOUT_S="2").wait_ready(2)


def whole_again(server: Server, victim: int) -> float:
    """Return the seconds until another worker has taken the place of the victim and is ready."""
    started = time.monotonic()
    wait_until(lambda: len({*server.worker_pids()} - {victim}) == 2)
    wait_until(lambda: server.sample("mnist_workers") == 2)
    return time.monotonic() - started


def test_a_killed_worker_takes_only_the_requests_that_it_held(server: Server, record_property: Record):
    with Load(server.v2_url) as load:
        wait_until(lambda: load.right > 50)
        victim = server.worker_pids()[0]
        os.kill(victim, signal.SIGKILL)
        record_property("seconds", whole_again(server, victim))
    assert load.wrong == []
    # Each of four clients has one request on its way, and may meet the dead listener once more.
    assert len(load.cut) <= 8


def test_a_stopped_worker_is_noticed_and_replaced(server: Server, record_property: Record):
    victim, other = server.worker_pids()
    os.kill(victim, signal.SIGSTOP)
    seconds = whole_again(server, victim)
    record_property("seconds", seconds)
    assert seconds > WATCHDOG_S - 1
    assert f"worker {victim} has given no sign of life" in server.log
    assert other in server.worker_pids()


@pytest.mark.slow
def test_a_worker_that_cannot_begin_ends_and_is_tried_again(start: Start, tmp_path: Path, record_property: Record):
    tokens = tmp_path / "tokens"
    tokens.write_text("one\n")
    server = start(MNIST_WORKERS="2", MNIST_ADMIN_TOKEN_FILE=str(tokens)).wait_ready(2)
    victim, other = server.worker_pids()
    tokens.write_text("")
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: "Application startup failed" in server.log)
    assert "there is no token in it" in server.log
    assert {answer.status_code for _ in range(20) if (answer := server.get("/livez"))} == {200}
    tokens.write_text("two\n")
    record_property("seconds", whole_again(server, victim))
    assert other in server.worker_pids()


@pytest.mark.fault
@pytest.mark.parametrize("name", ["mnist-cnn", "another"])
def test_a_version_that_ends_whoever_loads_it_costs_one_worker(
    name: str, start: Start, models: Path, tmp_path: Path, record_property: Record
):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, pathlib\n"
        "usual = pathlib.Path.read_bytes\n"
        "def deadly(self):\n"
        "    return os.abort() if self.parent.name == '2' and self.suffix == '.onnx' else usual(self)\n"
        "pathlib.Path.read_bytes = deadly\n"
    )
    server = start(MNIST_WORKERS="2", PYTHONPATH=str(tmp_path)).wait_ready(2)
    first = server.worker_pids()
    write_tiny_model(models, name, 2)
    try:
        with Load(server.v2_url) as load:
            wait_until(lambda: load.right > 50)
            started = time.monotonic()
            server.signal(signal.SIGHUP)
            wait_until(lambda: len({*server.worker_pids()} - {*first}) == 1)
            wait_until(lambda: server.sample("mnist_workers") == 2)
            record_property("seconds", time.monotonic() - started)
        assert load.wrong == []
        assert len(load.cut) <= 8
        assert len({*server.worker_pids()} & {*first}) == 1
        index = httpx.post(f"{server.v2_url}/v2/repository/index").json()
        states = {(each["name"], each["version"]): (each["state"], each["reason"]) for each in index}
        assert states["mnist-cnn", "1"] == ("READY", "")
        assert states[name, "2"][0] == "UNAVAILABLE"
        assert states[name, "2"][1].startswith("loading: found the end of the process that began it")
    finally:
        shutil.rmtree(models / name / "2")


@pytest.mark.fault
def test_a_stop_does_not_wait_for_a_stopped_worker(server: Server, record_property: Record):
    victim = server.worker_pids()[0]
    os.kill(victim, signal.SIGSTOP)
    started = time.monotonic()
    server.signal()
    assert server.wait(60) == 0
    record_property("seconds", time.monotonic() - started)
