"""What a machine may run out of, or get wrong, while the service runs: time, memory, descriptors, the clock."""

import contextlib
import io
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from tests.e2e.conftest import Start
from tests.e2e.load import Load
from tests.e2e.server import Server, pixels, wait_until
from tests.e2e.slow_model import SLOW, STUCK, write_slow_model
from tests.e2e.test_grpc_lifecycle import connect, infer

Record = Callable[[str, object], None]

TIMEOUT_S, WATCHDOG_S = 1.0, 3.0


@pytest.fixture(scope="module")
def start_slow(start: Start, models: Path) -> Start:
    """Return a function that starts a server with a slow model."""
    write_slow_model(models, "slow")
    return partial(start, MNIST_MAX_BATCH_SIZE="4", MNIST_REQUEST_TIMEOUT_S=str(TIMEOUT_S))


@pytest.fixture(scope="module")
def server(start_slow: Start) -> Server:
    return start_slow().wait_ready()


def ask(server: Server, speed: int = 0, model: str = "slow") -> int:
    """Return the status of a request to the slow model."""
    image = np.zeros((28, 28), np.uint8)
    image[5, 5], image[27, 27] = 200, speed
    return httpx.post(f"{server.v2_url}/predict?model={model}", content=pixels(image), timeout=20).status_code


def answers(server: Server) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return ask(server) == 200
    return False


def seconds_until(condition: Callable[[], object]) -> float:
    started = time.monotonic()
    wait_until(condition)
    return time.monotonic() - started


def test_a_slow_model_is_answered_in_time_and_health_goes_on(server: Server, record_property: Record):
    wait_until(lambda: answers(server))
    with ThreadPoolExecutor(3) as pool:
        started = time.monotonic()
        late = [pool.submit(ask, server, SLOW), pool.submit(ask, server), pool.submit(ask, server, 0, "mnist-cnn")]
        time.sleep(0.2)
        assert server.get("/livez").status_code == server.get("/readyz").status_code == 200
        assert {each.result() for each in late} <= {504, 200}
        assert late[0].result() == 504
        assert time.monotonic() - started < TIMEOUT_S + 3
    record_property("seconds", seconds_until(lambda: answers(server)))


@pytest.mark.fault
def test_a_model_that_never_comes_back_is_ended_with_its_worker(start_slow: Start, record_property: Record):
    server = start_slow(MNIST_WATCHDOG_S=str(WATCHDOG_S)).wait_ready()
    (worker,) = server.worker_pids()
    assert ask(server, STUCK) == 504
    assert server.get("/livez").status_code == 200
    seconds = seconds_until(lambda: worker not in server.worker_pids() and answers(server))
    record_property("seconds", seconds + TIMEOUT_S)
    assert f"worker {worker} has given no sign of life" in server.log


@pytest.mark.fault
def test_a_decoder_that_never_comes_back_is_ended_with_its_worker(
    start: Start, tmp_path: Path, record_property: Record
):
    (tmp_path / "sitecustomize.py").write_text(
        "import time\n"
        "from PIL import Image\n"
        "usual = Image.open\n"
        "def stuck(stream, *rest, **named):\n"
        "    if stream.getvalue().endswith(b'stuck'):\n"
        "        time.sleep(1000)\n"
        "    return usual(stream, *rest, **named)\n"
        "Image.open = stuck\n"
    )
    limits = {"MNIST_WATCHDOG_S": str(WATCHDOG_S), "MNIST_REQUEST_TIMEOUT_S": str(TIMEOUT_S)}
    server = start(PYTHONPATH=str(tmp_path), **limits).wait_ready()
    (worker,) = server.worker_pids()
    stream = io.BytesIO()
    Image.effect_noise((100, 100), 50).save(stream, "PNG")
    picture = stream.getvalue()

    def status(content: bytes) -> int:
        with contextlib.suppress(httpx.TransportError):
            return httpx.post(f"{server.v2_url}/predict", content=content, timeout=20).status_code
        return 0

    wait_until(lambda: status(picture) == 200)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(status, [picture + b"stuck"] * 4)) == {504}
    seconds = seconds_until(lambda: worker not in server.worker_pids() and status(picture) == 200)
    record_property("seconds", seconds + TIMEOUT_S)
    assert f"worker {worker} has given no sign of life" in server.log


def test_without_memory_a_picture_fails_and_the_next_does_not(server: Server, record_property: Record):
    (worker,) = server.worker_pids()
    stream = io.BytesIO()
    Image.new("RGB", (6000, 6000), (200, 30, 30)).save(stream, "PNG", compress_level=1)
    large = stream.getvalue()

    def send() -> httpx.Response:
        return httpx.post(f"{server.v2_url}/predict", content=large, timeout=20)

    used = psutil.Process(worker).memory_info().vms
    resource.prlimit(worker, resource.RLIMIT_AS, (used + (50 << 20), resource.RLIM_INFINITY))
    try:
        # On a busy machine the time of a request may pass first.
        answer = wait_until(lambda: (sent := send()).status_code != 504 and sent)
        assert answer.status_code == 503, answer.text
        assert "no memory for this picture" in answer.text
        wait_until(lambda: answers(server))
    finally:
        resource.prlimit(worker, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    record_property("seconds", seconds_until(lambda: send().status_code in (200, 504)))
    assert server.worker_pids() == [worker]


@pytest.mark.fault
def test_a_worker_that_the_kernel_kills_for_its_memory_is_replaced(server: Server, record_property: Record):
    # The kernel sends SIGKILL, too.
    (worker,) = server.worker_pids()
    os.kill(worker, signal.SIGKILL)
    record_property("seconds", seconds_until(lambda: worker not in server.worker_pids() and answers(server)))


def test_without_descriptors_open_connections_are_answered_and_new_ones_later(server: Server, record_property: Record):
    (worker,) = server.worker_pids()
    process = psutil.Process(worker)
    with httpx.Client(base_url=server.v2_url, timeout=5) as client, contextlib.ExitStack() as stack:
        assert client.get("/livez").status_code == 200
        limit, (_, hard) = process.num_fds() + 5, process.rlimit(psutil.RLIMIT_NOFILE)
        before = resource.prlimit(worker, resource.RLIMIT_NOFILE, (limit, hard))
        stack.callback(resource.prlimit, worker, resource.RLIMIT_NOFILE, before)
        for _ in range(20):
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_connection(("127.0.0.1", server.v2_port), 1))
        time.sleep(1.5)
        # The connection that was there goes on; what needs a file of its own fails, and says so.
        assert client.post("/predict", content=pixels(np.eye(28, dtype=np.uint8))).status_code == 200
        assert client.get("/metrics").status_code in (200, 500)
    record_property("seconds", seconds_until(lambda: answers(server)))
    assert server.worker_pids() == [worker]
    resident = server.sample("mnist_resident_memory_bytes")
    wait_until(lambda: server.sample("mnist_resident_memory_bytes") != resident)


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """Return the file by which the wall clock of the processes is set; its folder holds the library that obeys it."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("the clock that jumps needs a C compiler")
    library = tmp_path / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True)
    offset = tmp_path / "offset"
    offset.write_text("0")
    return offset


@pytest.mark.fault
@pytest.mark.parametrize("jump_s", [-3600, 86_400 * 400])
def test_a_wall_clock_that_jumps_loses_no_request_and_no_supervision(
    start: Start, clock: Path, record_property: Record, jump_s: int
):
    library = str(clock.with_name("clock.so"))
    server = start(LD_PRELOAD=library, CLOCK_OFFSET_FILE=str(clock), MNIST_WORKERS="2").wait_ready(2)
    with Load(server.v2_url, 2) as bare, Load(server.url, 2) as bentoml, connect(server) as channel:
        wait_until(lambda: bare.right > 20 and bentoml.right > 20)
        clock.write_text(str(jump_s))
        counted = bare.right, bentoml.right
        wait_until(lambda: bare.right > counted[0] + 50 and bentoml.right > counted[1] + 50)
        assert all(infer(channel, place) for place in range(5))
    assert bare.wrong + bare.cut + bentoml.wrong + bentoml.cut == []
    assert abs(server.sample("mnist_last_inference_timestamp_seconds") - time.time() - jump_s) < 600
    victim, _ = server.worker_pids()
    os.kill(victim, signal.SIGKILL)
    seconds = seconds_until(
        lambda: len({*server.worker_pids()} - {victim}) == 2 and server.sample("mnist_workers") == 2
    )
    record_property("seconds", seconds)
