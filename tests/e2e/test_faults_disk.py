"""Files that go wrong while the service runs: models, metrics, logs, and a disk that is full."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from serving.manifest import FILE_NAME, MODEL_FILE_NAME
from tests.e2e.conftest import Start
from tests.e2e.load import Load
from tests.e2e.server import ROOT, Server, wait_until

Record = Callable[[str, object], None]
PIXELS = {"pixels": [1] + [0] * 783}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder with a file system of its own, of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take all that is left."""
    path = disk / "full"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(b"\1" * size)
            except OSError:
                continue
    return path


@pytest.fixture(scope="module")
def server(start: Start) -> Server:
    return start().wait_ready()


def is_right(server: Server) -> bool:
    return httpx.post(f"{server.v2_url}/predict", json=PIXELS).status_code == 200


@pytest.mark.fault
def test_a_full_disk_under_the_metrics_kills_nobody_and_stops_no_answer(start: Start, disk: Path):
    server = start(TMPDIR=str(disk), MNIST_WORKERS="2").wait_ready(2)
    workers = server.worker_pids()
    fill(disk)
    # Every route and status is a value of its own, which no file has yet.
    for path in ("/predict", "/explain", "/v2/models/mnist-cnn/infer", "/v2/models/none/infer", "/v2", "/docs", "/x"):
        for send in (httpx.get, httpx.post, httpx.delete):
            assert send(server.v2_url + path).status_code != 500
    for _ in range(20):
        assert is_right(server)
    assert server.sample("mnist_predictions_total") == 20
    assert server.worker_pids() == workers
    server.signal()
    assert server.wait() == 0


@pytest.mark.fault
def test_a_disk_that_is_full_from_the_beginning_costs_the_metrics_alone(start: Start, disk: Path):
    (disk / "filler").write_bytes(bytes(3 << 20))
    server = start(TMPDIR=str(disk), MNIST_WORKERS="2")
    wait_until(lambda: server.log.count("ready: mnist-cnn") == 2)
    assert "no room for metrics" in server.log
    assert all(is_right(server) for _ in range(20))
    assert httpx.get(f"{server.url}/metrics").status_code == 200
    server.signal()
    assert server.wait() == 0


@pytest.mark.fault
def test_a_full_disk_under_the_log_stops_no_answer(start: Start):
    server = start("sh", "-c", f"exec {sys.executable} -m serving serve >/dev/full 2>&1", MNIST_ACCESS_LOG="true")
    server.wait_ready()
    assert all(is_right(server) for _ in range(20))
    server.signal()
    assert server.wait() == 0


@pytest.mark.fault
def test_a_full_disk_under_the_output_keeps_the_old_one_and_what_was_scored(
    models: Path, disk: Path, tmp_path: Path, record_property: Record
):
    images, output = tmp_path / "images.npy", disk / "scored.csv"
    np.save(images, np.random.default_rng(0).integers(0, 256, (5_000, 28, 28), np.uint8))
    output.write_text("the old one")
    filler = fill(disk)
    os.truncate(filler, filler.stat().st_size - 60_000)
    score = [sys.executable, "-m", "serving", "score", str(images), "--models", str(models), "--model", "mnist-cnn"]
    score += ["--output", str(output), "--quiet"]
    ended = subprocess.run(score, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert (ended.returncode, output.read_text()) == (1, "the old one")
    assert ended.stderr.endswith("what is scored is kept, free some space and add --resume\n")
    filler.unlink()
    started = time.monotonic()
    subprocess.run([*score, "--resume"], cwd=ROOT, check=True, timeout=120)
    record_property("seconds", time.monotonic() - started)
    assert len(output.read_text().splitlines()) == 5_001


def test_broken_files_of_metrics_are_left_out_and_the_rest_goes_on(server: Server):
    before = server.sample("mnist_predictions_total")
    (folder,) = server.log_path.parent.glob("mnist-reader-metrics-*")
    (folder / "counter_1.db").write_bytes(os.urandom(4096))
    (folder / "histogram_1.db").write_bytes(b"")
    assert is_right(server)
    assert httpx.get(f"{server.url}/metrics").status_code == 200
    assert server.sample("mnist_predictions_total") == before + 1
    assert httpx.get(f"{server.url}/v2/models/mnist-cnn/stats").json()["model_stats"][0]["inference_count"] > before
    assert "counter_1.db is not counted" in server.log


@pytest.mark.parametrize("fault", ["removed", "cut", "replaced", "manifest gone", "folder gone"])
def test_a_model_that_is_spoiled_on_the_disk_goes_on_being_served(
    server: Server, models: Path, record_property: Record, fault: str
):
    folder = models / "mnist-cnn" / "1"
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    spoil(folder, fault)
    try:
        with Load(server.v2_url, 2) as load:
            wait_until(lambda: load.right > 10)
            lines = server.log.count("\n")
            server.signal(signal.SIGHUP)
            wait_until(lambda: server.log.count("\n") > lines)
            before = load.right
            wait_until(lambda: load.right > before + 10 or load.wrong)
        if fault != "folder gone":
            assert load.wrong == []
            assert server.get("/readyz").status_code == 200
    finally:
        started = time.monotonic()
        folder.mkdir(exist_ok=True)
        for path, data in kept.items():
            path.write_bytes(data)
        server.signal(signal.SIGHUP)
        wait_until(lambda: server.get("/readyz").status_code == 200 and is_right(server))
        record_property("seconds", time.monotonic() - started)


def spoil(folder: Path, fault: str) -> None:
    model = folder / MODEL_FILE_NAME
    if fault == "removed":
        model.unlink()
    elif fault == "cut":
        os.truncate(model, 1000)
    elif fault == "replaced":
        model.write_bytes(b"another file of the same name" * 100)
    elif fault == "manifest gone":
        (folder / FILE_NAME).unlink()
    else:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
