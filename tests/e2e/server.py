"""The real service in processes of its own, on free ports."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.ports import free_ports

ROOT = Path(__file__).parents[2]

# For whatever is waited for. A start takes 3 s on an idle machine and has taken 40 on a busy one.
LIMIT_S = 120.0


def wait_until(condition: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
    """Return what `condition` gives as soon as it is true."""
    stop = time.monotonic() + limit_s
    while time.monotonic() < stop:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {limit_s} s")


class Server:
    """One instance of the service.

    Args:
        folder: private; holds the log and BentoML's home.
        command: what starts it.
        cwd: where.
        environ: settings.
    """

    def __init__(self, folder: Path, models: Path, *command: str, cwd: Path = ROOT, **environ: str):
        self.port, self.v2_port, self.grpc_port = free_ports(3)
        self.log_path = folder / "server.log"
        # Without what the tests' own processes are told of gRPC: see tests/conftest.py.
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith(("MNIST_", "GRPC_"))}
        self.environ |= {
            "BENTOML_HOME": str(folder / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
            "TMPDIR": str(folder),
            "MNIST_MODELS": str(models),
            "MNIST_HOST": "127.0.0.1",
            "PORT": str(self.port),
            "V2_PORT": str(self.v2_port),
            "GRPC_PORT": str(self.grpc_port),
            "MNIST_DRAIN_S": "0.5",
        } | environ
        self._log = self.log_path.open("wb")
        self.process = subprocess.Popen(
            command or (sys.executable, "-m", "serving", "serve"),
            cwd=cwd,
            env=self.environ,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def v2_url(self) -> str:
        return f"http://127.0.0.1:{self.v2_port}"

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def get(self, path: str) -> httpx.Response | None:
        try:
            return httpx.get(self.url + path, timeout=20)
        except httpx.TransportError:
            return None

    def wait_ready(self, workers: int = 1) -> "Server":
        """Return when every worker is ready."""

        def ready() -> bool:
            assert self.process.poll() is None, self.log
            answer = self.get("/readyz")
            return answer is not None and answer.status_code == 200 and self.sample("mnist_workers") == workers

        try:
            wait_until(ready)
        except AssertionError as error:
            raise AssertionError(self.log) from error
        return self

    def sample(self, name: str) -> float:
        """Return the sum of a metric over its labels; `name` may end in a label set."""
        answer = httpx.get(self.url + "/metrics", timeout=20)
        lines = [line for line in answer.text.splitlines() if line.startswith(name)]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def worker_pids(self) -> list[int]:
        """Return the worker processes, oldest first."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        workers = [child for child in children if _is_worker(child)]
        return [child.pid for child in sorted(workers, key=lambda child: child.create_time())]

    def signal(self, number: int = signal.SIGTERM) -> None:
        os.kill(self.process.pid, number)

    def wait(self, limit_s: float = LIMIT_S) -> int:
        """Return the exit code."""
        return self.process.wait(limit_s)

    def kill(self) -> None:
        """End it and everything that it started."""
        # The workers are in process groups of their own.
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.process.pid)
            for process in (root, *root.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self.process.wait(LIMIT_S)
        self._log.close()


def _is_worker(process: psutil.Process) -> bool:
    try:
        return any("_bentoml_impl.worker" in part for part in process.cmdline())
    except psutil.NoSuchProcess:  # also a zombie
        return False


def pixels(image: Any) -> bytes:
    """Return the JSON body of one image."""
    return json.dumps({"pixels": image.tolist()}).encode()
