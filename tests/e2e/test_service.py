"""The whole service, one worker, by its clients."""

import json
import socket
import time

import bentoml
import cv2
import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from serving.metrics import Metrics
from tests.conftest import Digits
from tests.e2e.conftest import Start
from tests.e2e.server import Server
from tests.serving.tiny_model import expected_logits

# BentoML 1.4.40 calls what pathspec and pydantic have deprecated when its client is imported.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def server(start: Start) -> Server:
    return start(MNIST_MAX_BODY_BYTES="1000000", MNIST_BODY_TIMEOUT_S="1").wait_ready()


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def test_both_http_ports_answer_alike(server: Server, test_digits: Digits):
    files = [("f", (f"{place}.png", png(image))) for place, image in enumerate(test_digits[0][:50])]
    answers = [httpx.post(f"{url}/predict", files=files) for url in (server.url, server.v2_url)]
    assert answers[0].json() == answers[1].json()
    found = [prediction["digit"] for prediction in answers[0].json()["predictions"]]
    assert found == expected_logits(test_digits[0][:50]).argmax(axis=1).tolist()


def test_bentomls_own_client_works(server: Server, test_digits: Digits):
    with bentoml.SyncHTTPClient(server.url) as client:
        answer = client.classify(images=test_digits[0][:5])
        assert answer["digits"] == expected_logits(test_digits[0][:5]).argmax(axis=1).tolist()
        assert client.classify(images=test_digits[0][:0])["digits"] == []
        for wrong in (np.zeros((2, 28, 27), np.uint8), np.full((1, 28, 28), 300), np.full((1, 28, 28), 0.5)):
            with pytest.raises(bentoml.exceptions.BentoMLException, match="expected"):
                client.classify(images=wrong)
    assert "Traceback" not in server.log


def test_health_and_metrics_answer_on_both_ports(server: Server):
    for url in (server.url, server.v2_url):
        for path in ("/livez", "/readyz", "/healthz", "/v2/health/ready"):
            assert httpx.get(url + path).status_code == 200
        text = httpx.get(f"{url}/metrics", headers={"accept": "application/openmetrics-text"}).text
        names = {family.name for family in text_string_to_metric_families(text)}
        assert names == {family.name for family in Metrics(CollectorRegistry()).registry.collect()}


def test_bentoml_adds_no_routes_of_its_own(server: Server):
    for path in ("/docs.json", "/static_content/index.css", "/assets/x"):
        assert httpx.get(server.url + path).json() == {"error": f"there is nothing at {path}"}


def test_a_pickle_is_not_unpickled(server: Server):
    marker = server.log_path.parent / "pickled"
    body = b"cposix\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR."
    for path in ("/classify", "/predict"):
        for kind in ("application/vnd.bentoml+pickle", "application/octet-stream"):
            headers = {"content-type": kind, "payload-container": "DefaultContainer"}
            assert 400 <= httpx.post(server.url + path, content=body, headers=headers).status_code < 500
    assert not marker.exists()


def early_answer(server: Server, head: bytes, body: bytes = b"") -> bytes:
    """Send the beginning of a request, and return what comes until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", server.v2_port), timeout=10) as connection:
        connection.sendall(head + body)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    return received


def test_a_gigabyte_is_refused_before_it_is_read(server: Server):
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n"
    answer = early_answer(server, head)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"limit of 1000000 bytes" in answer


def test_a_body_that_comes_a_byte_at_a_time_is_given_up(server: Server):
    answer = early_answer(server, b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n", b"a")
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_an_endless_chunked_body_is_cut_at_the_limit(server: Server):
    def endless():
        for _ in range(1000):
            yield b"\0" * 65536

    sent = 0
    try:
        answer = httpx.post(f"{server.v2_url}/predict", content=endless())
    except httpx.TransportError:
        sent = 1
    else:
        assert answer.status_code == 413
    assert sent or answer.headers["connection"] == "close"
    assert httpx.get(f"{server.v2_url}/livez").status_code == 200


def test_a_worker_without_requests_uses_no_processor(server: Server):
    def used() -> float:
        """Return the share of a processor."""
        began, before = time.monotonic(), server.sample("mnist_cpu_seconds_total")
        time.sleep(2)
        return (server.sample("mnist_cpu_seconds_total") - before) / (time.monotonic() - began)

    # Whatever earlier requests left to do ends by itself; a thread that spins never does.
    assert min(used() for _ in range(3)) < 0.05


def test_the_request_id_goes_through(server: Server):
    answer = httpx.get(f"{server.url}/nothing", headers={"x-request-id": "abc-1"})
    assert answer.headers["x-request-id"] == "abc-1"


def test_nothing_that_was_sent_left_a_traceback(server: Server):
    httpx.post(f"{server.url}/classify", content="{", headers={"content-type": "application/json"})
    httpx.post(f"{server.url}/classify", json={"images": "x"})
    httpx.post(f"{server.url}/predict", content=json.dumps({"pixels": "x"}))
    assert "Traceback" not in server.log
