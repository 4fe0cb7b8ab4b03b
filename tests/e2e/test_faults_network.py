"""A network that delays, resets or goes silent, between real clients and the service."""

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.e2e.conftest import Start
from tests.e2e.proxy import Proxy
from tests.e2e.server import Server, wait_until
from tests.e2e.test_grpc_lifecycle import connect_to, infer

Record = Callable[[str, object], None]
BODY = b'{"pixels": [' + b",".join([b"[" + b",".join([b"1"] * 784) + b"]"] * 20) + b"]}"
STALL_S = 2.0


@pytest.fixture(scope="module")
def server(start: Start) -> Server:
    return start(MNIST_BODY_TIMEOUT_S=str(STALL_S)).wait_ready()


def in_progress(server: Server) -> float:
    # Whoever asks is in progress, too.
    return server.sample('mnist_requests_in_progress{protocol="http"}') - 1


def is_calm(server: Server) -> bool:
    """Whether nothing is left of requests that went wrong, and new ones are answered."""
    return in_progress(server) == 0 and httpx.post(f"{server.v2_url}/predict", content=BODY).status_code == 200


@pytest.mark.parametrize("port", ["port", "v2_port"])
def test_requests_that_arrive_in_late_crumbs_are_answered(server: Server, port: str):
    with Proxy(getattr(server, port), chunk_bytes=2000, delay_s=0.02) as proxy, httpx.Client(timeout=20) as client:
        for _ in range(2):
            answer = client.post(f"{proxy.url}/predict", content=BODY)
            assert answer.status_code == 200
            assert len(answer.json()["predictions"]) == 20


def test_grpc_calls_that_arrive_in_late_crumbs_are_answered(server: Server):
    with Proxy(server.grpc_port, chunk_bytes=200, delay_s=0.005) as proxy, connect_to(proxy.address) as channel:
        assert all(infer(channel, place) for place in range(3))


def test_requests_that_are_reset_halfway_leave_nothing_behind(server: Server, record_property: Record):
    def send(_: int) -> None:
        with contextlib.suppress(httpx.TransportError):
            httpx.post(f"{proxy.url}/predict", content=BODY)

    with Proxy(server.v2_port, reset_after=10_000) as proxy, ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(40)))
    started = time.monotonic()
    wait_until(lambda: is_calm(server))
    record_property("seconds", time.monotonic() - started)
    assert "Traceback" not in server.log


def test_a_request_that_falls_silent_is_given_up_after_the_body_timeout(server: Server, record_property: Record):
    with Proxy(server.v2_port, silent_after=10_000) as proxy, ThreadPoolExecutor(4) as pool:
        started = time.monotonic()
        answers = list(pool.map(lambda _: httpx.post(f"{proxy.url}/predict", content=BODY, timeout=30), range(4)))
        assert {answer.status_code for answer in answers} == {408}
        wait_until(lambda: is_calm(server))
        record_property("seconds", time.monotonic() - started)
    assert time.monotonic() - started < STALL_S + 5
