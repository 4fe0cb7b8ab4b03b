"""The client of the benchmarks: sends one request again and again, as fast as it is answered or at a rate; times it."""

import asyncio
import time
from array import array
from collections import deque
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from serving.grpc.stubs import inference_pb2 as pb

INFER = "/inference.GRPCInferenceService/ModelInfer"


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request under way at a time.

    Args:
        request: head and body, as sent.
    """

    def __init__(self, request: bytes):
        self._request = request
        self._answer, self._expected = bytearray(), 0
        self._transport: Any = None
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        """Take the transport."""
        self._transport = transport

    def send(self) -> None:
        """Send the request."""
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Take part of an answer."""
        self._answer += data
        if not self._expected:
            head, found, _ = self._answer.partition(b"\r\n\r\n")
            if not found:
                return
            self._expected = len(head) + 4 + _content_length(head)
        if len(self._answer) >= self._expected:
            self._answer, self._expected = bytearray(), 0
            self.answered()

    def answered(self) -> None:
        """Take note of a whole answer."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()
        if not self.finished.done():
            self.finished.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """Fail if the server hangs up."""
        if not self.finished.done():
            self.finished.set_exception(error or ConnectionResetError("the server closed the connection"))


class Busy(Connection):
    """Sends the next request as soon as there is an answer, until the common budget is spent.

    Args:
        request: head and body, as sent.
        budget: requests left, for all connections together.
        durations: gets the seconds of each answer.
    """

    def __init__(self, request: bytes, budget: list[int], durations: list[float]):
        super().__init__(request)
        self._budget, self._durations, self._sent = budget, durations, 0.0

    def connection_made(self, transport: Any) -> None:
        """Send the first request."""
        super().connection_made(transport)
        self._go_on()

    def _go_on(self) -> None:
        if not self._budget[0]:
            self.close()
            return
        self._budget[0] -= 1
        self._sent = time.perf_counter()
        self.send()

    def answered(self) -> None:
        """Note the time and go on."""
        self._durations.append(time.perf_counter() - self._sent)
        self._go_on()


class Paced(Connection):
    """Sends when it is told; a request that is due while all connections are busy waits, and its time counts.

    Args:
        request: head and body, as sent.
        free: connections without anything to do.
        due: when the requests were due that wait.
        answers: gets two numbers for each request: when it was due, and the seconds from then to its answer.
    """

    def __init__(self, request: bytes, free: "deque[Paced]", due: deque[float], answers: "array[float]"):
        super().__init__(request)
        self._free, self._due, self._answers, self._since = free, due, answers, 0.0

    def begin(self, since: float) -> None:
        """Send a request that was due at a time."""
        self._since = since
        self.send()

    def answered(self) -> None:
        """Note the time, and take what waits."""
        self._answers.extend((self._since, time.perf_counter() - self._since))
        if self._due:
            self.begin(self._due.popleft())
        else:
            self._free.append(self)


def _content_length(head: bytearray) -> int:
    lines = bytes(head).lower().split(b"\r\n")
    if not lines[0].startswith(b"http/1.1 200"):
        raise RuntimeError(f"answered {lines[0].decode()}")
    for line in lines:
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    raise RuntimeError("answered without a content-length")


def http_request(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """Return a POST request as it travels."""
    fields = {"host": "127.0.0.1", "content-length": str(len(body))} | headers
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode() + body


async def ask_http(port: int, request: bytes) -> bytes:
    """Send a request once, and return the body of its answer; any status but 200 is an error."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        return await reader.readexactly(_content_length(bytearray(head)))
    finally:
        writer.close()
        await writer.wait_closed()


async def send_http(port: int, request: bytes, count: int, connections: int) -> list[float]:
    """Send `count` requests, and return the seconds of each answer; any status but 200 is an error."""
    budget, durations = [count], list[float]()
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: Busy(request, budget, durations), "127.0.0.1", port)
        for _ in range(connections)
    ]
    try:
        await asyncio.gather(*(connection.finished for _, connection in made))
    finally:
        for _, connection in made:
            connection.close()
    return durations


async def send_at_rate(
    port: int, request: bytes, per_s: float, seconds: float, connections: int
) -> npt.NDArray[np.float64]:
    """Send requests at a constant rate, whatever has been answered.

    Returns:
        float64 (N, 2), in the order of the answers: when each request was due, on `time.perf_counter`, and the seconds
        from then to its answer.

    Raises:
        RuntimeError: any status but 200.
        ConnectionError: the server hung up.
    """
    free, due, answers = deque[Paced](), deque[float](), array("d")
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        made = await loop.create_connection(lambda: Paced(request, free, due, answers), "127.0.0.1", port)
        free.append(made[1])
    everyone = list(free)
    broken = asyncio.gather(*(connection.finished for connection in everyone))
    started, count = time.perf_counter(), round(per_s * seconds)
    for number in range(count):
        since = started + number / per_s
        while time.perf_counter() < since:
            # The loop's timers are too coarse: they count in milliseconds.
            await asyncio.sleep(0)
        if broken.done():
            break
        if free:
            free.popleft().begin(since)
        else:
            due.append(since)
    while len(answers) < 2 * count and not broken.done():
        await asyncio.sleep(0)
    for connection in everyone:
        connection.close()
    await broken
    return np.frombuffer(answers).reshape(-1, 2)


async def ask_grpc(port: int, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    """Call once, and return the answer."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(INFER, pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString)
        answer: pb.ModelInferResponse = await call(request)
        return answer


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
