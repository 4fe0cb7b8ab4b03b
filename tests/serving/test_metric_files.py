import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from serving import metric_files
from serving.metric_files import ROOM_BYTES, Collector, forget_dead_workers, is_alive
from tests.serving.test_metrics import ROOT, WORKER, run

RESERVED = "from pathlib import Path; from serving import metric_files; metric_files.reserve(Path(sys.argv[2]))"


def requests(folder: Path) -> float | None:
    registry = CollectorRegistry()
    Collector(registry, folder)
    labels = {"protocol": "http", "method": "POST", "route": "/predict", "model": "tiny", "status": "200"}
    return registry.get_sample_value("mnist_requests_total", labels)


def test_room_is_taken_for_every_file_that_a_worker_writes(tmp_path: Path):
    run(f"import sys\n{RESERVED}\n{WORKER}", tmp_path, "3", str(tmp_path))
    files = {path.stem.rpartition("_")[0]: path.stat() for path in tmp_path.glob("*.db")}
    assert {kind: status.st_size for kind, status in files.items()} == ROOM_BYTES
    assert all(status.st_blocks * 512 >= status.st_size for status in files.values())
    assert requests(tmp_path) == 3


def test_without_room_a_worker_counts_for_itself(tmp_path: Path):
    full = "def full(*_): raise OSError(28, 'No space left on device')\nimport os\nos.posix_fallocate = full"
    show = "from serving.metrics import expose\nimport os\ndel os.environ['PROMETHEUS_MULTIPROC_DIR']"
    code = f"import sys\n{full}\n{RESERVED}\n{WORKER}\n{show}\nprint(expose(metrics.registry, '')[0].decode())"
    environ = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    command = [sys.executable, "-c", code, "3", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environ, check=True, capture_output=True, text=True)
    assert 'mnist_requests_total{method="POST",model="tiny",protocol="http",route="/predict",status="200"} 3.0' in (
        done.stdout
    )
    assert "no room for metrics" in done.stderr
    assert list(tmp_path.iterdir()) == []


def broken_files(data: bytes) -> dict[str, bytes]:
    """Return what a file may be after a crash of the machine, or by a false hand."""
    used = struct.unpack_from("i", data)[0]
    backwards = bytearray(data)
    struct.pack_into("i", backwards, 8, -28)  # by which prometheus_client would go round for ever
    return {
        "empty": b"",
        "a few bytes": data[:3],
        "cut": data[: used - 10],
        "zeros inside": data[:60] + bytes(200) + data[260:],
        "no text": data.replace(b"mnist", b"\xff\xfe\xfd\xfc\xfb"),
        "other JSON": data.replace(b'["mnist_', b'{"mnist_'),
        "random": os.urandom(5000),
        "backwards": bytes(backwards),
        "too long": struct.pack("i", 1 << 30) + data[4:],
    }


def test_files_that_are_broken_are_told_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    run(WORKER, tmp_path, "3")
    (good,) = tmp_path.glob("counter_*.db")
    for place, data in enumerate(broken_files(good.read_bytes()).values()):
        (tmp_path / f"counter_90000{place}.db").write_bytes(data)
    (tmp_path / "nonsense.db").write_bytes(good.read_bytes())
    (tmp_path / "gauge_livesum_x.db").write_bytes(b"x")
    assert requests(tmp_path) == 3
    assert caplog.text.count("is not counted") >= 8
    assert good.name not in caplog.text


def test_dead_workers_leave_their_counters_in_as_little_room_as_they_need(tmp_path: Path):
    run(f"import sys\n{RESERVED}\n{WORKER}", tmp_path, "3", str(tmp_path))
    (tmp_path / "counter_900000001.db").write_bytes(b"")
    forget_dead_workers(tmp_path)
    assert list(tmp_path.glob("gauge_live*")) == []
    assert sum(path.stat().st_size for path in tmp_path.glob("*.db")) < 50_000
    assert requests(tmp_path) == 3


def test_a_worker_that_two_others_forget_at_once_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run(WORKER, tmp_path, "3")

    def gone(*_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(metric_files, "mark_process_dead", gone)
    forget_dead_workers(tmp_path)


def test_somebody_elses_process_counts_as_alive(monkeypatch: pytest.MonkeyPatch):
    def forbidden(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", forbidden)
    assert is_alive(1)
