"""A network that loses, delays, resets or swallows packets, between real clients and every port of the service."""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.e2e.conftest import Start
from tests.e2e.load import Load
from tests.e2e.namespace import network_namespace, rule, slow_link
from tests.e2e.server import Server, wait_until
from tests.e2e.test_faults_network import BODY, in_progress, is_calm
from tests.e2e.test_grpc_lifecycle import connect, infer

Record = Callable[[str, object], None]
STALL_S = 2.0

# Of clients that lose the network. By their ports it would take others along, which soon get one of these again.
SWALLOWED = "127.0.0.2"

pytestmark = pytest.mark.fault


@pytest.fixture(scope="module")
def network() -> Iterator[None]:
    with network_namespace():
        yield


@pytest.fixture(scope="module")
def server(network: None, start: Start) -> Iterator[Server]:
    started = start(MNIST_BODY_TIMEOUT_S=str(STALL_S), MNIST_MAX_CONNECTIONS="30").wait_ready()
    yield started
    # Before the network is left: whoever ends it asks it for nothing.
    started.kill()


def ports(server: Server) -> str:
    return f"{server.port},{server.v2_port},{server.grpc_port}"


def to_the_service(server: Server, *words: str) -> contextlib.AbstractContextManager[None]:
    return rule("-m", "multiport", "--dports", ports(server), *words)


def test_with_a_packet_in_ten_lost_every_request_is_answered(server: Server, record_property: Record):
    lossy = to_the_service(server, "-m", "statistic", "--mode", "random", "--probability", "0.1", "-j", "DROP")
    started = time.monotonic()
    with lossy, Load(server.v2_url, 2) as bare, Load(server.url, 2) as bentoml, connect(server) as channel:
        assert all(infer(channel, place) for place in range(50))
        wait_until(lambda: bare.right > 100 and bentoml.right > 100)
    record_property("seconds", time.monotonic() - started)
    assert bare.wrong + bare.cut + bentoml.wrong + bentoml.cut == []
    wait_until(lambda: is_calm(server))


def test_over_a_link_of_half_a_megabit_every_request_is_answered(server: Server, record_property: Record):
    started = time.monotonic()
    with slow_link("500kbit", "200ms"), httpx.Client(timeout=20) as client, connect(server) as channel:
        for url in (server.url, server.v2_url):
            assert len(client.post(f"{url}/predict", content=BODY).json()["predictions"]) == 20
        assert all(infer(channel, place) for place in range(10))
    seconds = time.monotonic() - started
    record_property("seconds", seconds)
    assert seconds > 1


def test_connections_that_are_reset_cost_their_own_requests_alone(server: Server, record_property: Record):
    with Load(server.v2_url, 4) as load:
        wait_until(lambda: load.right > 50)
        with to_the_service(server, "-j", "REJECT", "--reject-with", "tcp-reset"):
            wait_until(lambda: load.cut or load.refused)
            time.sleep(1)
        started, before = time.monotonic(), load.right
        wait_until(lambda: load.right > before)
        record_property("seconds", time.monotonic() - started)
    assert load.wrong == []
    wait_until(lambda: is_calm(server))


def test_clients_that_the_network_swallows_leave_nothing_behind(server: Server, record_property: Record):
    """Half of each request has arrived, and nothing more ever does, not even that its client has gone."""
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), 10, (SWALLOWED, 0)))
            for port in (server.port, server.v2_port)
            for _ in range(5)
        ]
        for client in clients:
            client.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{")
        wait_until(lambda: in_progress(server) == len(clients))
        started = time.monotonic()
        with rule("-s", SWALLOWED, "-j", "DROP"):
            stack.close()
            wait_until(lambda: is_calm(server))
            record_property("seconds", time.monotonic() - started)
    assert time.monotonic() - started < STALL_S + 5
    assert "Traceback" not in server.log
