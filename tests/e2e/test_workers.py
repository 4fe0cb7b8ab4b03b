"""Several workers behind the ports: one killed, metrics of all, orders for all."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.e2e.conftest import Start
from tests.e2e.server import Server, wait_until

TOKEN = "let-me-in"
PIXELS = {"pixels": [1] + [0] * 783}


@pytest.fixture(scope="module")
def server(start: Start) -> Server:
    return start(MNIST_WORKERS="2", MNIST_ADMIN_TOKEN=TOKEN).wait_ready(2)


def test_counts_are_exact_and_never_fall_while_workers_answer_together(server: Server):
    def count(status: str = "") -> float:
        labels = 'method="POST",model="mnist-cnn",protocol="http",route="/predict",status="' + status
        return server.sample("mnist_requests_total{" + labels)

    assert count() == 0
    seen = []
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(httpx.post, f"{server.v2_url}/predict", json=PIXELS) for _ in range(100)]
        futures += [pool.submit(httpx.post, f"{server.url}/predict", content=b"[") for _ in range(10)]
        while len(seen) < 20 or not all(future.done() for future in futures):
            seen.append(count())
    assert seen == sorted(seen)
    assert (count("200"), count("400"), count()) == (100, 10, 110)
    assert server.sample("mnist_predictions_total") == 100
    assert "pid=" not in httpx.get(f"{server.url}/metrics").text


def test_a_killed_worker_comes_back_and_leaves_its_counts_but_no_ghosts(server: Server):
    counted = server.sample("mnist_predictions_total")
    victim, other = server.worker_pids()
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in server.worker_pids())
    assert httpx.get(f"{server.url}/readyz", timeout=20).status_code == 200
    wait_until(lambda: len(server.worker_pids()) == 2 and server.sample("mnist_workers") == 2)
    assert other in server.worker_pids()
    assert server.sample("mnist_predictions_total") == counted


def test_both_workers_follow_an_order_that_one_was_given(server: Server):
    headers = {"authorization": f"Bearer {TOKEN}"}
    place = f"{server.url}/v2/repository/models/other"
    assert httpx.post(f"{place}/unload", json={}).status_code == 401
    assert httpx.post(f"{place}/unload", json={}, headers=headers).status_code == 200
    served = 'mnist_model_info{model="other"'
    wait_until(lambda: server.sample(served) == 0)
    statuses = {httpx.post(f"{server.v2_url}/predict?model=other", json=PIXELS).status_code for _ in range(20)}
    assert statuses == {503}
    assert httpx.post(f"{place}/load", json={}, headers=headers).status_code == 200

    def answered() -> bool:
        answers = [httpx.post(f"{server.v2_url}/predict?model=other", json=PIXELS) for _ in range(10)]
        return {answer.status_code for answer in answers} == {200}

    wait_until(answered)


@pytest.mark.slow
def test_orders_in_a_row_all_hold_on_both_workers(server: Server):
    headers = {"authorization": f"Bearer {TOKEN}"}
    models = "mnist-cnn", "other"

    def order(what: str) -> set[int]:
        """Give each order over a connection of its own, so that both workers are asked."""
        places = [f"{server.v2_url}/v2/repository/models/{model}/{what}" for model in models]
        return {httpx.post(place, json={}, headers=headers).status_code for place in places}

    def statuses() -> set[int]:
        places = [f"{server.v2_url}/predict?model={model}" for model in models for _ in range(8)]
        return {httpx.post(place, json=PIXELS).status_code for place in places}

    for _ in range(5):
        assert order("unload") == {200}
        # Each worker follows within half a second.
        wait_until(lambda: statuses() == {503})
        time.sleep(1)
        assert statuses() == {503}
        assert order("load") == {200}
        wait_until(lambda: statuses() == {200})


def test_a_scrape_stays_quick_after_many_workers_have_died(server: Server):
    (folder,) = server.log_path.parent.glob("mnist-reader-metrics-*")
    for path in [*folder.glob("counter_*.db"), *folder.glob("histogram_*.db")][:4]:
        for pid in range(9_000_000, 9_000_050):
            (folder / f"{path.stem.rpartition('_')[0]}_{pid}.db").write_bytes(path.read_bytes())
    durations = []
    for _ in range(3):
        started = time.perf_counter()
        assert httpx.get(f"{server.url}/metrics").status_code == 200
        durations.append(time.perf_counter() - started)
    # The line to reach is 0.2 s on an idle machine.
    assert min(durations) < 2


def test_the_folder_of_the_metrics_is_private_and_goes_with_the_instance(server: Server):
    (folder,) = server.log_path.parent.glob("mnist-reader-metrics-*")
    server.signal()
    assert server.wait() == 0
    assert not folder.exists()
