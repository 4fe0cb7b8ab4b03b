"""What the client of the benchmarks does with answers that are none."""

import asyncio
from typing import Any

import pytest

from benchmarks import serving_client as client

GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
REQUEST = client.http_request("/", b"x", {})
COUNT = 100


class Answering(asyncio.Protocol):
    """Gives answers one after the other, then good ones; hangs up for an empty one.

    Args:
        answers: for all connections together.
    """

    def __init__(self, answers: list[bytes]):
        self._answers = answers

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if given := self._answers.pop(0) if self._answers else GOOD:
            self._transport.write(given)
        else:
            self._transport.close()


async def send(answers: list[bytes], way: str) -> int:
    """Return how many answers came, at a rate or as fast as may be."""
    server = await asyncio.get_running_loop().create_server(lambda: Answering(answers), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        if way == "rate":
            return len(await client.send_at_rate(port, REQUEST, 1000.0, COUNT / 1000, 4))
        return len(await client.send_http(port, REQUEST, COUNT, 4))


@pytest.mark.parametrize("way", ["rate", "busy"])
async def test_every_request_is_answered(way: str):
    assert await send([], way) == COUNT


@pytest.mark.parametrize("way", ["rate", "busy"])
@pytest.mark.parametrize(
    ("bad", "error"), [(REFUSAL, pytest.raises(RuntimeError, match="503")), (b"", pytest.raises(ConnectionResetError))]
)
async def test_an_answer_that_is_none_ends_the_measurement(way: str, bad: bytes, error):
    with error:
        await asyncio.wait_for(send([GOOD] * 10 + [bad], way), 20)
