"""The client of `benchmarks/serving_cpu.py`: sends one request again and again, over so many connections; times it."""

import asyncio
import time
from typing import Any

import grpc

from serving.grpc.stubs import inference_pb2 as pb

INFER = "/inference.GRPCInferenceService/ModelInfer"


class Connection(asyncio.Protocol):
    """One keep-alive connection that always has one request under way, until the common budget is spent.

    Args:
        request: head and body, as sent.
        budget: requests left, for all connections together.
        durations: gets the seconds of each answer.
    """

    def __init__(self, request: bytes, budget: list[int], durations: list[float]):
        self._request, self._budget, self._durations = request, budget, durations
        self._answer, self._expected, self._sent = bytearray(), 0, 0.0
        self._transport: Any = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        """Send the first request."""
        self._transport = transport
        self._send()

    def _send(self) -> None:
        if not self._budget[0]:
            self._transport.close()
            self.done.set_result(None)
            return
        self._budget[0] -= 1
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Take part of an answer; after the last part send the next request."""
        self._answer += data
        if not self._expected:
            head, found, _ = self._answer.partition(b"\r\n\r\n")
            if not found:
                return
            self._expected = len(head) + 4 + _content_length(head)
        if len(self._answer) >= self._expected:
            self._durations.append(time.perf_counter() - self._sent)
            self._answer, self._expected = bytearray(), 0
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        """Fail if the server hangs up."""
        if not self.done.done():
            self.done.set_exception(error or ConnectionResetError("the server closed the connection"))


def _content_length(head: bytearray) -> int:
    lines = bytes(head).lower().split(b"\r\n")
    if not lines[0].startswith(b"http/1.1 200"):
        raise RuntimeError(f"answered {lines[0].decode()}")
    return next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))


def http_request(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """Return a POST request as it travels."""
    fields = {"host": "127.0.0.1", "content-length": str(len(body))} | headers
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode() + body


async def send_http(port: int, request: bytes, count: int, connections: int) -> list[float]:
    """Send `count` requests, and return the seconds of each answer; any status but 200 is an error."""
    budget, durations = [count], list[float]()
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: Connection(request, budget, durations), "127.0.0.1", port)
        for _ in range(connections)
    ]
    await asyncio.gather(*(connection.done for _, connection in made))
    return durations


async def send_grpc(port: int, request: pb.ModelInferRequest, count: int, connections: int) -> list[float]:
    """Send `count` calls from so many tasks on one channel, and return the seconds of each."""
    budget, durations = [count], list[float]()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(INFER, pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString)

        async def go_on() -> None:
            while budget[0]:
                budget[0] -= 1
                sent = time.perf_counter()
                await call(request)
                durations.append(time.perf_counter() - sent)

        await asyncio.gather(*(go_on() for _ in range(connections)))
    return durations
