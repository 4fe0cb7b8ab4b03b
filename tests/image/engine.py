"""The engine, the image that it built, and containers run from it as a platform would run them."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.e2e.server import LIMIT_S, wait_until
from tests.ports import free_ports

ENGINE, IMAGE, BASE_IMAGE, REVISION, BILL = (
    os.environ.get(name, "") for name in ("ENGINE", "IMAGE", "BASE_IMAGE", "REVISION", "BILL")
)
RUNTIME, SCORING = os.environ.get("RUNTIME", "cpu"), os.environ.get("SCORING") == "yes"

HARDENED = (
    "--read-only --tmpfs /tmp:rw,noexec,nosuid,size=128m,mode=1777 --cap-drop ALL --security-opt no-new-privileges "
    "--memory 1g --memory-swap 1g --cpus 2 --pids-limit 256"
).split()
# podman writes the user into /etc/passwd unless it is told not to; docker never does.
if ENGINE == "podman":
    HARDENED.append("--passwd=false")

# Prints the workers' process ids as the container sees them.
WORKER_IDS = """
import json, os, pathlib
found = []
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    if folder.name == str(os.getpid()):
        continue  # its own command line is this text
    try:
        command = (folder / "cmdline").read_bytes()
    except OSError:
        continue
    if b"_bentoml_impl.worker" in command:
        found.append(int(folder.name))
print(json.dumps(found))
"""


def engine(*arguments: str, check: bool = True) -> str:
    """Run a command of docker or podman and return what it printed."""
    done = subprocess.run([ENGINE, *arguments], capture_output=True, text=True, check=False, timeout=LIMIT_S)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout.strip()


class Container:
    """A running container and the ports of its three listeners.

    Args:
        name: no other's.
        options: of the engine.
        command: instead of the image's.
        workers: how many shall answer.
        ready: tells when; by default when every worker says so.
    """

    def __init__(
        self,
        name: str,
        options: tuple[str, ...],
        command: tuple[str, ...] = (),
        workers: int = 1,
        ready: Callable[["Container"], bool] | None = None,
    ):
        self.name, self.expected = name, workers
        self.http, self.v2, self.grpc = free_ports(3)
        ports = [f"-ePORT={self.http}", f"-eV2_PORT={self.v2}", f"-eGRPC_PORT={self.grpc}"]
        started = time.monotonic()
        settings = ["--network", "host", *ports, f"-eMNIST_WORKERS={workers}", *options]
        engine("run", "-d", "--name", name, *HARDENED, *settings, IMAGE, *command)
        try:
            wait_until(self.ready if ready is None else lambda: ready(self))
        except AssertionError as error:
            logs = subprocess.run([ENGINE, "logs", name], capture_output=True, text=True, check=False)
            raise AssertionError(logs.stdout + logs.stderr) from error
        self.ready_after_s = time.monotonic() - started

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http}{path}"

    def ready(self) -> bool:
        """Return whether every worker is ready: each answers for itself."""
        try:
            text = httpx.get(self.url("/metrics"), timeout=2).text
        except httpx.TransportError:
            return False
        return f"mnist_workers {self.expected:.1f}" in text.splitlines()

    def run(self, *command: str) -> str:
        """Run a command inside and return what it printed."""
        return engine("exec", self.name, *command)

    def workers(self) -> set[int]:
        """Return the process ids, inside the container, of what answers requests."""
        return set(json.loads(self.run("python3", "-c", WORKER_IDS)))

    def healthy(self) -> bool:
        """Return whether the image's health check passes. podman's needs systemd to run by itself, so it is told to."""
        if ENGINE == "podman":
            done = subprocess.run(
                [ENGINE, "healthcheck", "run", self.name], capture_output=True, check=False, timeout=LIMIT_S
            )
            return done.returncode == 0
        return engine("inspect", self.name, "--format", "{{.State.Health.Status}}") == "healthy"

    def exit_code(self) -> int:
        return int(engine("inspect", self.name, "--format", "{{.State.ExitCode}}"))


@contextmanager
def running(name: str, *options: str, user: str = "12345:0", **arguments: Any) -> Iterator[Container]:
    """Give a container that is ready; remove it in the end. See `Container` for the arguments."""
    name = f"mnist-reader-{name}-{os.getpid()}"
    try:
        yield Container(name, ("--user", user, *options), **arguments)
    finally:
        engine("rm", "-f", name, check=False)
