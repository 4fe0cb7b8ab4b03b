import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from serving.__main__ import main
from serving.commands.health import reachable


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[BaseHTTPRequestHandler]]:
    """Answer `/readyz` with the class's status on a port that PORT names."""

    class Answer(BaseHTTPRequestHandler):
        status = 200

        def do_GET(self) -> None:
            self.send_response(self.status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("PORT", str(server.server_port))
        yield Answer
        server.shutdown()
        thread.join()


def test_a_ready_service_is_healthy(service, capsys):
    assert main(["health"]) == 0
    assert capsys.readouterr().out == "ready\n"


def test_a_service_that_is_not_ready_is_not_healthy(service, capsys):
    service.status = 503
    assert main(["health"]) == 1
    assert "/readyz answered 503" in capsys.readouterr().err


def test_no_service_is_not_healthy(free_port, monkeypatch, capsys):
    monkeypatch.setenv("PORT", str(free_port))
    assert main(["health"]) == 1
    assert "does not answer" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["-1", "0", "nan", "inf", "1e300", "soon"])
def test_a_time_that_nobody_can_wait_is_refused(capsys: pytest.CaptureFixture[str], given: str):
    with pytest.raises(SystemExit) as end:
        main(["health", "--timeout-s", given])
    assert end.value.code == 2
    assert f"--timeout-s: expected seconds, above 0 and up to 86400, got '{given}'" in capsys.readouterr().err


def test_a_short_time_is_taken(service):
    assert main(["health", "--timeout-s", "1.5"]) == 0


@pytest.mark.parametrize(
    ("host", "address"), [("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("::1", "[::1]"), ("10.1.2.3", "10.1.2.3")]
)
def test_the_check_asks_where_the_service_listens(host: str, address: str):
    assert reachable(host) == address
