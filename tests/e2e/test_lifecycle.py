"""From start to stop: readiness, draining, signals, reload."""

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from serving.manifest import MODEL_FILE_NAME
from tests.e2e.conftest import Start
from tests.e2e.load import Load
from tests.e2e.server import ROOT, Server, wait_until
from tests.serving.tiny_model import write_tiny_model


def is_down(server: Server) -> bool:
    return server.get("/livez") is None


def status(server: Server, path: str) -> int | None:
    answer = server.get(path)
    return answer.status_code if answer else None


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_fails_readiness_first_and_answers_everything_that_was_accepted(start: Start, workers: int):
    server = start(MNIST_WORKERS=str(workers), MNIST_DRAIN_S="4").wait_ready(workers)
    with Load(server.url, 2) as bentoml, Load(server.v2_url, 2) as bare:
        wait_until(lambda: bentoml.right > 20 and bare.right > 20)
        server.signal()
        wait_until(lambda: status(server, "/readyz") == 503)
        assert status(server, "/livez") == 200
        before = bentoml.right
        wait_until(lambda: bentoml.right > before)
        server.signal()
        assert server.wait() == 0
    for load in (bentoml, bare):
        assert load.wrong == []
        assert load.cut == []
        assert load.closed > 0
    assert "Traceback" not in server.log


@pytest.mark.parametrize("port", ["port", "v2_port"])
def test_a_stop_waits_no_longer_than_it_may_for_a_request(start: Start, port: str):
    server = start(MNIST_DRAIN_S="0", MNIST_STOP_S="1", MNIST_BODY_TIMEOUT_S="50").wait_ready()
    quiet = server.sample("mnist_requests_in_progress")
    with socket.create_connection(("127.0.0.1", getattr(server, port))) as slow:
        slow.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n12")
        wait_until(lambda: server.sample("mnist_requests_in_progress") > quiet)
        server.signal()
        assert server.wait(30) == 0
        assert slow.recv(1000).startswith(b"HTTP/1.1 503 ")
    assert "Traceback" not in server.log


def test_a_new_version_is_exchanged_under_load_and_nothing_is_lost(start: Start, models: Path):
    server = start().wait_ready()
    with Load(server.v2_url) as load:
        wait_until(lambda: load.right > 20)
        (write_tiny_model(models, "mnist-cnn", 7) / MODEL_FILE_NAME).write_bytes(b"bad")
        server.signal(signal.SIGHUP)
        wait_until(lambda: "mnist-cnn version 7 is not served" in server.log)
        write_tiny_model(models, "mnist-cnn", 8)
        server.signal(signal.SIGHUP)
        wait_until(lambda: "8" in load.versions)
    assert load.versions == {"1", "8"}
    assert load.wrong + load.cut == []
    assert len(server.worker_pids()) == 1
    assert server.sample('mnist_model_loads_total{model="mnist-cnn",result="rejected"}') >= 1


def test_liveness_answers_before_readiness_and_a_missing_default_model_is_never_ready(start: Start):
    server = start(MNIST_DEFAULT_MODEL="absent")
    wait_until(lambda: status(server, "/livez") == 200)
    wait_until(lambda: "the default model absent is not served" in server.log)
    assert status(server, "/readyz") == 503
    assert httpx.post(f"{server.url}/predict", content=b"x").status_code == 404
    assert httpx.post(f"{server.url}/predict?model=other", json={"pixels": [0] * 784}).status_code == 200


def test_from_another_folder_the_models_of_that_folder_are_served(start: Start, tmp_path: Path):
    write_tiny_model(tmp_path / "mine", "own", 3)
    where = {"cwd": tmp_path, "PYTHONPATH": str(ROOT)}
    server = start(MNIST_MODELS="mine", MNIST_DEFAULT_MODEL="own", **where).wait_ready()
    answer = httpx.post(f"{server.url}/predict", json={"pixels": [0] * 784}).json()
    assert answer["model"] == {"name": "own", "version": "3"}


def test_sigterm_during_the_start_ends_it(start: Start):
    server = start()
    wait_until(lambda: server.worker_pids())
    server.signal()
    assert server.wait() == 0


def held(server: Server) -> bool:
    status = Path(f"/proc/{server.process.pid}/status").read_text(encoding="utf-8")
    blocked = int(re.search(r"^SigBlk:\s*(\w+)$", status, re.MULTILINE)[1], 16)
    return bool(blocked & 1 << signal.SIGTERM - 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_there_is_a_handler_for_it_is_not_lost(start: Start, number: int):
    server = start()
    wait_until(lambda: held(server))
    server.signal(number)
    assert server.wait() == 0
    assert "ready" not in server.log


def test_sighup_during_the_start_ends_nothing(start: Start):
    server = start()
    wait_until(lambda: held(server))
    server.signal(signal.SIGHUP)
    pids = wait_until(lambda: server.worker_pids())
    server.signal(signal.SIGHUP)
    assert server.wait_ready().worker_pids() == pids


def test_workers_end_when_their_supervisor_is_killed(start: Start):
    server = start().wait_ready()
    (worker,) = server.worker_pids()
    server.signal(signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(worker))


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("MNIST_WORKERS", "none", "MNIST_WORKERS='none'"),
        ("MNIST_DEVICE", "cuda", "device cuda: "),
        ("OTEL_TRACES_EXPORTER", "zipkin", "OTEL_TRACES_EXPORTER='zipkin'"),
    ],
)
def test_a_setting_that_cannot_be_had_stops_the_start_and_is_named(start: Start, name: str, value: str, text: str):
    server = start(**{name: value})
    assert server.wait() != 0
    assert text in server.log
    assert "Starting production" not in server.log


def test_a_port_that_is_taken_stops_the_start_and_is_named(start: Start):
    first = start()
    wait_until(lambda: status(first, "/livez") == 200)
    for name, port in (("PORT", first.port), ("V2_PORT", first.v2_port), ("GRPC_PORT", first.grpc_port)):
        second = start(**{name: str(port)})
        assert second.wait() != 0
        assert f"{name}={port}: cannot listen" in second.log


def test_settings_are_printed_from_the_command_line():
    command = [sys.executable, "-m", "serving", "settings"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "MNIST_DRAIN_S" in printed
