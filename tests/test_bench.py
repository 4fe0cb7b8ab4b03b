"""What `benchmarks.bench` measures where there are few requests, or the answers are wrong."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from benchmarks import answers, bench, bench_peers
from benchmarks.cases import LARGE, binary_v2
from benchmarks.contenders import Contender
from benchmarks.servers import Ports

IMAGES = np.zeros((LARGE, 28, 28), np.uint8)
PROBABILITIES = np.full((1, 10), 0.1, np.float32)


class Answering(asyncio.Protocol):
    """Answers every piece of a request with the same bytes."""

    body = b""

    def connection_made(self, transport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(self.body)}\r\n\r\n"
        self._transport.write(head.encode() + self.body)


class Running:
    """A server under measurement that runs in this process."""

    stopped = False

    def __init__(self, port: int):
        self.ports = Ports(port)

    def cpu_s(self) -> float:
        return 0.0

    def stop(self) -> None:
        self.stopped = True


@pytest_asyncio.fixture
async def running(monkeypatch) -> AsyncIterator[Running]:
    monkeypatch.setattr(answers, "expected", lambda _model, _count: PROBABILITIES)
    monkeypatch.setattr(Answering, "body", PROBABILITIES.tobytes())
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0)
    async with server:
        yield Running(server.sockets[0].getsockname()[1])


@pytest.mark.parametrize("images", [1, 2])
async def test_few_requests_are_measured_too(running, images: int):
    figures = defaultdict(list)
    await bench.measure(running, binary_v2(IMAGES[:images]), 3, 2, figures)
    assert {name: len(values) for name, values in figures.items()} == {"per_s": 1, "cpu_us": 1, "p50_ms": 1}


async def test_a_server_that_answers_wrongly_is_not_measured(running, monkeypatch):
    measuring = bench.Bench(IMAGES, Path(), 1, 3, 1)
    cases = {"binary": binary_v2(IMAGES[:1])}
    assert list(await measuring.compare({"right": running}, cases)) == [("right", "binary")]
    monkeypatch.setattr(Answering, "body", b'{"error": "no model"}')
    with pytest.raises(RuntimeError, match="does not hold the model's probabilities"):
        await measuring.compare({"wrong": running}, cases)
    with pytest.raises(RuntimeError, match="does not hold the model's probabilities"):
        await bench.find_peak(running, cases["binary"], 3, 1)


async def test_a_peer_that_answers_wrongly_is_stopped_and_told(running, monkeypatch):
    peer = Contender("peer", lambda _: running, lambda images: {"binary": binary_v2(images[:1])}, ())
    assert await bench_peers.leave_out_wrong({"peer": running}, [peer], IMAGES) == []
    monkeypatch.setattr(Answering, "body", bytes(40))
    servers = {"peer": running}
    (failure,) = await bench_peers.leave_out_wrong(servers, [peer], IMAGES)
    assert failure.startswith("peer does not answer binary rightly: ")
    assert running.stopped
    assert servers == {}
