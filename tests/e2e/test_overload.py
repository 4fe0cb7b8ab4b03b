"""More requests than the service can answer."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from tests.e2e.conftest import Start
from tests.e2e.server import Server, wait_until

# 64 images of ones, 100 kB of JSON; eight of them fill the queue.
BODY = b'{"pixels": [' + b",".join([b"[" + b",".join([b"1"] * 784) + b"]"] * 64) + b"]}"


@pytest.fixture(scope="module")
def server(start: Start) -> Server:
    return start(MNIST_QUEUE_SIZE="128", MNIST_MAX_IMAGES="64", MNIST_MAX_BATCH_SIZE="8").wait_ready()


Answers = list[tuple[int, str | None]]


def flood(server: Server, stop: threading.Event, answers: Answers) -> None:
    """Send as fast as answers come, and add status and Retry-After of each."""
    with httpx.Client(timeout=30) as client:
        while not stop.is_set():
            answer = client.post(f"{server.v2_url}/predict", content=BODY)
            answers.append((answer.status_code, answer.headers.get("retry-after")))


def test_a_flood_is_refused_at_once_and_everything_else_goes_on(server: Server):
    stop, health, answers = threading.Event(), [], Answers()
    (worker,) = server.worker_pids()
    with ThreadPoolExecutor(12) as pool:
        floods = [pool.submit(flood, server, stop, answers) for _ in range(12)]
        # Until the queue has been full for a while.
        wait_until(lambda: len(answers) > 200)
        before = psutil.Process(worker).memory_info().rss
        for _ in range(8):
            started = time.perf_counter()
            assert httpx.get(f"{server.url}/livez", timeout=30).status_code == 200
            assert httpx.get(f"{server.url}/readyz", timeout=30).status_code == 200
            health.append(time.perf_counter() - started)
            time.sleep(0.1)
        after = psutil.Process(worker).memory_info().rss
        stop.set()
        for each in floods:
            each.result()
    statuses = {status for status, _ in answers}
    assert statuses <= {200, 429}
    assert 200 in statuses
    assert all(retry_after and int(retry_after) >= 1 for status, retry_after in answers if status == 429)
    assert server.sample('mnist_rejected_total{reason="queue_full"}') == sum(s == 429 for s, _ in answers)
    assert after < before * 1.2
    assert sorted(health)[len(health) // 2] < 5


def test_after_the_flood_everything_is_as_before(server: Server):
    assert server.sample("mnist_queue_images") == 0
    assert httpx.post(f"{server.v2_url}/predict", json={"pixels": [1] * 784}).status_code == 200
    # The one that asks is in progress itself.
    assert server.sample('mnist_requests_in_progress{protocol="http"}') == 1
