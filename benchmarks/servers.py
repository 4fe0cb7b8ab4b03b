"""Servers under measurement, each with its processes: their processor time and memory; and what machine this is."""

import contextlib
import os
import platform
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil

from serving.repository import Repository
from tests.ports import free_ports

ROOT = Path(__file__).resolve().parents[1]
MODEL = "mnist-cnn"

READY_S = 120.0

# To end when told so; for those that are left when it has ended.
STOP_S, ORPHANS_S = 20.0, 2.0


class Ports(NamedTuple):
    """Of one server; 0 where it has none."""

    http: int
    grpc: int = 0


def model_file(name: str = MODEL) -> Path:
    """Return the ONNX file of a model's latest version; by default of the one that every server serves."""
    return Repository(ROOT / "models").folder(name) / "model.onnx"


class Server:
    """A server, its supervisor and its workers.

    Args:
        command: starts it.
        ports: that it listens on.
        ready: path that answers below 400 when it is ready.
        environ: its environment, on top of this one's.
        log: gets what it says.

    Attributes:
        ready_s: from its start to the first answer that it is ready.
    """

    def __init__(self, command: list[str], ports: Ports, ready: str, environ: dict[str, str], log: Path):
        self.ports = ports
        started = time.perf_counter()
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | environ, start_new_session=True, stdout=out, stderr=out
            )
        try:
            self._wait(f"http://127.0.0.1:{ports.http}{ready}", log)
        except BaseException:
            self.stop()
            raise
        self.ready_s = time.perf_counter() - started

    def _wait(self, url: str, log: Path) -> None:
        end = time.perf_counter() + READY_S
        while time.perf_counter() < end:
            if self._process.poll() is not None:
                break
            try:
                if httpx.get(url, timeout=5).status_code < 400:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.02)
        said = log.read_text(encoding="utf-8", errors="replace").splitlines() or ["nothing"]
        raise RuntimeError(f"no answer when asked whether it is ready; it said last: {said[-1]}")

    def _processes(self) -> set[psutil.Process]:
        """Return all its processes: BentoML's workers leave its session, Ray's may lose their parent."""
        found = {process for process in psutil.process_iter() if _session(process.pid) == self._process.pid}
        if self._process.poll() is None:
            found.update(psutil.Process(self._process.pid).children(recursive=True))
        return found

    def cpu_s(self) -> float:
        """Return the processor time of all its processes so far, as the kernel's scheduler counts it."""
        return sum(_scheduled_s(process.pid) for process in self._processes())

    def memory_mb(self) -> float:
        """Return the proportional set size of all its processes: what several share counts once."""
        return sum(process.memory_full_info().pss for process in self._processes()) / 1e6

    def put_in_front(self, core: int, priority: int) -> None:
        """Bind what answers to a core, before all that has a lower real-time priority there.

        A supervisor is left where it is: it waits without sleep for workers that end, and would keep them from it.
        """
        first = psutil.Process(self._process.pid)
        for process in first.children(recursive=True) or [first]:
            for task in Path(f"/proc/{process.pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), {core})
                os.sched_setscheduler(int(task.name), os.SCHED_FIFO, os.sched_param(priority))

    def stop(self) -> None:
        """Stop it, with everything that it has started."""
        processes = self._processes()
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        _, alive = psutil.wait_procs(processes | self._processes(), timeout=ORPHANS_S)
        for process in alive:
            process.kill()
        self._process.wait(STOP_S)


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:  # it has just ended
        return 0


def _scheduled_s(pid: int) -> float:
    total_ns = 0
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total_ns += int(task.read_text(encoding="ascii").split()[0])
        except OSError:  # a thread that has just ended
            continue
    return total_ns / 1e9


def start_ours(
    folder: Path, workers: int = 1, *, through_bentoml: bool = False, threads: int = 1, **settings: str
) -> Server:
    """Start the service; on the bare listener's port, or on BentoML's; `settings` are environment variables."""
    port, http_port, grpc_port = free_ports(3)
    environ = {
        "BENTOML_HOME": str(folder),
        "MNIST_HOST": "127.0.0.1",
        "MNIST_DEFAULT_MODEL": MODEL,
        "MNIST_THREADS": str(threads),
        "MNIST_WORKERS": str(workers),
        "MNIST_DRAIN_S": "0",
        "PORT": str(port),
        "V2_PORT": str(http_port),
        "GRPC_PORT": str(grpc_port),
    } | settings
    ports = Ports(port if through_bentoml else http_port, grpc_port)
    return Server([sys.executable, "-m", "serving", "serve"], ports, "/readyz", environ, folder / "ours.log")


def start_floor(folder: Path, threads: int = 1) -> Server:
    """Start the server that checks nothing."""
    ports = Ports(*free_ports(2))
    command = [sys.executable, "benchmarks/floor.py", f"--http-port={ports.http}", f"--grpc-port={ports.grpc}"]
    return Server([*command, f"--model={MODEL}", f"--threads={threads}"], ports, "/ready", {}, folder / "floor.log")


def describe_machine() -> str:
    """Return processor, memory, system and date, for the head of a table."""
    text = Path("/proc/cpuinfo").read_text(encoding="ascii") if sys.platform == "linux" else ""
    found = re.search(r"model name\s*: (.+)", text)
    memory_gb = psutil.virtual_memory().total / 1e9
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{os.cpu_count()} cores of {found[1] if found else platform.processor()}, {memory_gb:.0f} GB, "
        f"{platform.system()}, Python {platform.python_version()}, "
        f"{datetime.now(UTC):%d %B %Y}; load before the start: {load}"
    )
