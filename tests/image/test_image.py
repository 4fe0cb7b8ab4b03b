"""The image as a platform runs it: static facts, hardened, with limits, a lost worker, a stop under load.

`make image-test` builds the image and names it and the engine in the environment.
"""

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import numpy as np
import pytest

ENGINE, IMAGE, BASE_IMAGE = (os.environ.get(name, "") for name in ("ENGINE", "IMAGE", "BASE_IMAGE"))
pytestmark = pytest.mark.skipif(not IMAGE, reason="`make image-test` builds the image that this tests")

# What the CPU image may add to its base, in bytes.
LARGEST_ADDITION = 450_000_000
WORKERS = 2
HARDENED = (
    "--read-only --tmpfs /tmp:rw,noexec,nosuid,size=128m,mode=1777 --user 12345:0 --cap-drop ALL "
    "--security-opt no-new-privileges --memory 1g --memory-swap 1g --cpus 2 --pids-limit 256 --network host"
).split()


def engine(*arguments: str, check: bool = True) -> str:
    done = subprocess.run([ENGINE, *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout.strip()


def until(holds: Callable[[], bool], limit_s: float, what: str) -> None:
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, f"no {what} within {limit_s} s"
        time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    import socket

    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class Container:
    """A running container and the ports of its three listeners."""

    def __init__(self, name: str, *options: str):
        self.name = name
        self.http, self.v2, self.grpc = free_ports(3)
        ports = [f"-ePORT={self.http}", f"-eV2_PORT={self.v2}", f"-eGRPC_PORT={self.grpc}"]
        started = time.monotonic()
        engine("run", "-d", "--name", name, *HARDENED, *ports, *options, IMAGE)
        until(self.ready, 60, "readiness of every worker")
        self.ready_after_s = time.monotonic() - started

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http}{path}"

    def ready(self) -> bool:
        """Return whether every worker is ready: each answers for itself."""
        try:
            text = httpx.get(self.url("/metrics"), timeout=2).text
        except httpx.TransportError:
            return False
        return f"mnist_workers {WORKERS:.1f}" in text.splitlines()

    def workers(self) -> set[int]:
        """Return the process ids, inside the container, of what answers requests."""
        found = engine("exec", self.name, "python3", "-c", WORKER_IDS)
        return set(json.loads(found))

    def remove(self) -> None:
        engine("rm", "-f", self.name, check=False)


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


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    running = Container(f"mnist-reader-test-{os.getpid()}", "-eHOME=/nonexistent", f"-eMNIST_WORKERS={WORKERS}")
    yield running
    running.remove()


@pytest.fixture(scope="module")
def facts() -> dict[str, object]:
    return json.loads(engine("image", "inspect", IMAGE))[0]


def image_size(name: str) -> int:
    return int(engine("image", "inspect", name, "--format", "{{.Size}}"))


def test_the_image_runs_as_a_number_that_is_not_root(facts):
    assert re.fullmatch(r"[1-9]\d*:0", facts["Config"]["User"])


def test_the_image_says_how_to_check_and_to_stop_it(facts):
    config = facts["Config"]
    assert (facts.get("Healthcheck") or config["Healthcheck"])["Test"][-1] == "health"
    assert config["StopSignal"] in ("SIGTERM", "15")
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_the_image_holds_no_torch_compiler_installer_or_test():
    places = "/opt/venv/lib/python3*/site-packages"
    forbidden = f"{places}/torch {places}/pip {places}/setuptools /app/tests /app/training /usr/bin/gcc /usr/bin/strip"
    found = engine("run", "--rm", "--entrypoint", "sh", IMAGE, "-c", f"ls -d {forbidden} 2>/dev/null; true")
    assert found == ""


@pytest.mark.skipif(os.environ.get("RUNTIME") == "gpu", reason="the bound is the CPU image's")
def test_the_image_adds_little_to_its_base(facts):
    base = image_size(BASE_IMAGE) if BASE_IMAGE else 0
    print(f"image {image_size(IMAGE) / 1e6:.0f} MB, base {base / 1e6:.0f} MB")
    assert image_size(IMAGE) - base <= LARGEST_ADDITION


def test_a_hardened_container_is_ready_and_predicts(container, seven):
    answer = httpx.post(container.url("/predict"), content=seven)
    print(f"ready after {container.ready_after_s:.1f} s")
    assert answer.status_code == 200
    assert answer.json()["predictions"][0]["digit"] == 7


def test_it_predicts_over_grpc(container, test_digits):
    from tritonclient.grpc import InferenceServerClient, InferInput

    images, labels = test_digits
    tensor = InferInput("images", [10, 28, 28], "UINT8").set_data_from_numpy(images[:10])
    with InferenceServerClient(f"127.0.0.1:{container.grpc}") as client:
        model = client.get_model_repository_index().models[0].name
        answer = client.infer(model, [tensor])
    assert (answer.as_numpy("probabilities").argmax(1) == labels[:10]).mean() >= 0.9


def test_it_exposes_metrics(container):
    text = httpx.get(container.url("/metrics")).text
    assert re.search(r"^mnist_requests_total\{", text, re.MULTILINE)


def test_its_health_check_passes(container):
    assert engine("exec", container.name, "python3", "-m", "serving", "health") == "ready"


def test_its_root_cannot_be_written_and_its_user_is_not_root(container):
    engine("exec", container.name, "sh", "-c", "test $(id -u) = 12345 && ! touch /app/x 2>/dev/null && touch /tmp/x")


def test_a_killed_worker_comes_back(container, seven):
    before = container.workers()
    assert len(before) == WORKERS
    lost = min(before)
    engine("exec", container.name, "python3", "-c", f"import os; os.kill({lost}, 9)")
    until(lambda: lost not in (now := container.workers()) and len(now) == WORKERS, 30, "new worker")
    until(container.ready, 30, "readiness of every worker")
    assert httpx.post(container.url("/predict"), content=seven).status_code == 200


def test_a_stop_under_load_loses_nothing(container, seven):
    """Clients that keep their connections see an answer to every request that was accepted."""
    outcomes: list[str] = []
    threads = [threading.Thread(target=ask_until_closed, args=(container, seven, outcomes)) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(outcomes) > 100, 30, "load")
    started = time.monotonic()
    engine("stop", "-t", "40", container.name)
    for thread in threads:
        thread.join()
    stopped_after_s = time.monotonic() - started
    state = json.loads(engine("inspect", container.name))[0]["State"]
    print(f"stopped in {stopped_after_s:.1f} s, {len(outcomes)} requests, {outcomes.count('lost')} lost")
    assert set(outcomes) == {"right"}
    assert state["ExitCode"] == 0


def ask_until_closed(container: Container, picture: bytes, outcomes: list[str]) -> None:
    """Ask over one kept connection at a time until no listener accepts one."""
    while True:
        try:
            with httpx.Client() as client:
                while True:
                    answer = client.post(container.url("/predict"), content=picture)
                    outcomes.append("right" if answer.status_code == 200 else str(answer.status_code))
                    if answer.headers.get("connection") == "close":
                        break
        except httpx.ConnectError:
            return
        except httpx.TransportError:
            outcomes.append("lost")


@pytest.fixture(scope="module")
def seven(test_digits) -> bytes:
    """Return a test digit 7 as a PNG file."""
    from io import BytesIO

    from PIL import Image

    images, labels = test_digits
    buffer = BytesIO()
    Image.fromarray(images[np.flatnonzero(labels == 7)[0]]).save(buffer, "PNG")
    return buffer.getvalue()
