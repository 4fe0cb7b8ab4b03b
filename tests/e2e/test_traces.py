"""Traces of the real service, as a collector gets them."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from tests.e2e.conftest import Start
from tests.e2e.server import wait_until

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(ThreadingHTTPServer):
    """Takes what is exported over OTLP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Collecting)
        self.bodies: list[tuple[str, bytes]] = []


class Collecting(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.bodies.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def test_a_request_on_each_port_is_part_of_its_callers_trace(start: Start, collector: Collector):
    server = start(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.server_port}").wait_ready()
    for url in (server.url, server.v2_url):
        headers = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
        assert httpx.post(f"{url}/predict", json={"pixels": [1] * 784}, headers=headers).status_code == 200
    server.signal()
    assert server.wait() == 0
    wait_until(lambda: sum(body.count(bytes.fromhex(TRACE)) for _, body in collector.bodies) == 2)
    assert {path for path, _ in collector.bodies} == {"/v1/traces"}
    assert all(b"mnist-reader" in body and b"readyz" not in body for _, body in collector.bodies)
