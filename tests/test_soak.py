"""What the soak notes where answers are not of the form that it expects."""

import threading

import httpx
import numpy as np
import pytest

from benchmarks.soak import Soak, report

PORTS = [1, 1, 1]


def soaked(respond) -> Soak:
    """Return a soak over HTTP that has had some answers of a server that answers so."""
    soak = Soak(np.zeros((10, 28, 28), np.uint8), np.zeros(10, np.int64), PORTS)
    waiting = iter(range(20))

    def answer(request: httpx.Request) -> httpx.Response:
        if next(waiting, None) is None:
            soak.stop.set()
        return respond(request)

    usual = httpx.Client
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx, "Client", lambda **_: usual(transport=httpx.MockTransport(answer)))
        sending = threading.Thread(target=soak.run_http, daemon=True)
        sending.start()
        sending.join(20)
    assert soak.stop.is_set()
    return soak


@pytest.mark.parametrize(
    "body", ["Internal Server Error", "[]", '{"predictions": [1], "outputs": [{"data": [1]}]}', '{"outputs": [1]}']
)
def test_answers_of_another_form_are_wrong_and_the_next_request_is_sent_all_the_same(body: str, capsys):
    soak = soaked(lambda _: httpx.Response(200, text=body))
    assert len(soak.wrong) == sum(soak.counts.values()) == 21
    assert report(soak, 1.0, growth=0.0, code=0) == 1
    assert "wrong answers: 21" in capsys.readouterr().out


def test_an_error_without_json_counts_as_one(capsys):
    soak = soaked(lambda _: httpx.Response(500, text="Internal Server Error"))
    assert sum(soak.counts.values()) == 21
    assert report(soak, 1.0, growth=0.0, code=0) == 1
    assert "5xx: 21" in capsys.readouterr().out
