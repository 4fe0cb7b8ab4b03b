"""What one client may cost, on both HTTP ports of the real service."""

import contextlib
import select
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.e2e.conftest import Start
from tests.e2e.server import Server, wait_until

MAX_BODY_BYTES = 16_000_000
GIGABYTE = 1_000_000_000
PORTS = ["port", "v2_port"]
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture(scope="module")
def server(start: Start) -> Server:
    limits = {"MNIST_MAX_BODY_BYTES": str(MAX_BODY_BYTES), "MNIST_HEAD_TIMEOUT_S": "1", "MNIST_MAX_CONNECTIONS": "50"}
    return start(MNIST_BODY_TIMEOUT_S="20", **limits).wait_ready()


def connect(server: Server, port: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", getattr(server, port)), timeout=10)


def rest(connection: socket.socket) -> bytes:
    """Return what still comes until the server closes the connection."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while chunk := connection.recv(65536):
            received += chunk
    return received


@contextlib.contextmanager
def peak(server: Server) -> Iterator[list[int]]:
    """Measure the growth of the worker's memory: yield a list that then holds it, in bytes."""
    (pid,) = server.worker_pids()
    process = psutil.Process(pid)
    before, grown, stop = process.memory_info().rss, [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.005):
            grown[0] = max(grown[0], process.memory_info().rss - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield grown
    finally:
        stop.set()
        thread.join()


def pour(connection: socket.socket, *, chunked: bool) -> int:
    """Send a gigabyte of zeros, or as much as the server takes; return how much that was."""
    block = bytes(1_000_000)
    piece = b"%x\r\n%b\r\n" % (len(block), block) if chunked else block
    sent = 0
    with contextlib.suppress(OSError):
        while sent < GIGABYTE:
            connection.sendall(piece)
            sent += len(block)
    return sent


@pytest.mark.parametrize("path", ["/predict", "/explain", "/v2/models/mnist-cnn/infer", "/classify"])
@pytest.mark.parametrize("form", ["declared", "chunked"])
def test_case_d09_a_gigabyte_is_cut_at_the_limit_and_memory_stays_below_twice_of_it(
    server: Server, path: str, form: str
):
    chunked = form == "chunked"
    length = "transfer-encoding: chunked" if chunked else f"content-length: {GIGABYTE}"
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{length}\r\n\r\n".encode()
    with peak(server) as grown, connect(server, "port") as connection:
        connection.sendall(head)
        answer = b"" if chunked else connection.recv(65536)
        sent = pour(connection, chunked=chunked)
        answer += rest(connection)
    assert sent < GIGABYTE / 2
    assert grown[0] < 2 * MAX_BODY_BYTES
    # Who is still sending when the connection ends may miss the answer.
    assert answer.startswith(b"HTTP/1.1 413 ") or (chunked and not answer)
    assert httpx.get(f"{server.url}/livez").status_code == 200


@pytest.mark.parametrize("port", PORTS)
def test_a_slow_head_is_ended_on_both_ports_while_others_are_answered(server: Server, port: str):
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect(server, port)) for _ in range(40)]
        for connection in slow:
            connection.sendall(b"POST /predict HTTP/1.1\r\nx: y")
        assert httpx.get(f"http://127.0.0.1:{getattr(server, port)}/livez").status_code == 200
        started = time.monotonic()
        assert {rest(connection)[:13] for connection in slow} == {b"HTTP/1.1 408 "}
        assert time.monotonic() - started < 10


@pytest.mark.parametrize("port", PORTS)
def test_connections_that_send_nothing_do_not_keep_others_out(server: Server, port: str):
    silent = []
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            silent += [stack.enter_context(connect(server, port)) for _ in range(50)]
            assert httpx.get(f"http://127.0.0.1:{getattr(server, port)}/livez").status_code == 200
        # What the server has closed can be read to its end.
        wait_until(lambda: len(select.select(silent, [], [], 0)[0]) >= 100)


def test_a_full_port_keeps_nobody_from_the_others_where_the_usual_number_of_descriptors_is_too_low(start: Start):
    serve = f"ulimit -Sn 256 && exec {shlex.quote(sys.executable)} -m serving serve"
    server = start("sh", "-c", serve, MNIST_MAX_CONNECTIONS="300").wait_ready()
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            connection = stack.enter_context(connect(server, "v2_port"))
            connection.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            assert connection.recv(13) == b"HTTP/1.1 200 "
        assert httpx.get(f"{server.url}/livez").status_code == 200
        assert httpx.get(f"{server.v2_url}/livez").status_code == 200
    assert "Traceback" not in server.log


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("sent", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\na: " + b"b" * 40_000, GET])
def test_no_answer_names_the_server_and_each_has_the_security_headers(server: Server, port: str, sent: bytes):
    with connect(server, port) as connection:
        connection.sendall(sent)
        head = connection.recv(65536).partition(b"\r\n\r\n")[0].lower()
    assert b"\r\nx-content-type-options: nosniff" in head
    assert b"\r\nx-frame-options: deny" in head
    names = [line.partition(b":")[0] for line in head.split(b"\r\n")[1:]]
    assert sorted(names) == sorted(set(names))
    assert not any(name in head for name in (b"\r\nserver:", b"uvicorn", b"bentoml", b"python"))


def test_bentomls_own_method_is_within_the_limits(server: Server):
    def classify(content: bytes, media_type: str = "application/json") -> httpx.Response:
        return httpx.post(f"{server.url}/classify", content=content, headers={"content-type": media_type})

    assert classify(b"[" * 100_000).status_code == 400
    assert classify(b'{"images": [], "images": []}').status_code == 400
    assert classify(b"[" + b"[]," * 1_000_000 + b"[]]").status_code == 413
    assert classify(b"x", "multipart/form-data; boundary=x").status_code == 415
    answer = classify(b'{"images": 5}')
    assert answer.status_code == 400
    many = [[[0] * 28] * 28] * 2049
    refused = httpx.post(f"{server.url}/classify", json={"images": many})
    assert (refused.status_code, refused.json()) == (413, {"error": "pixels: 2049 images, the limit is 2048"})
    assert [pair for pair in answer.headers.items() if "bento" in str(pair).lower() or pair[0] == "server"] == []
    assert "Traceback" not in server.log
