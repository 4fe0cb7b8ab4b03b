"""Three times as many requests as the service can answer, for half a minute: goodput, latency, health, memory.

Run: .venv/bin/python benchmarks/overload.py [--duration-s 30] [--factor 3] [--model mnist-resnet]

The service runs on the first core, the clients on the others. First the peak: so many connections that always have a
request under way. Then a constant rate of arrivals, whatever has been answered. Exits with 1 if a bound is missed.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.soak import resident_bytes, start_server
from serving.settings import Settings
from tests.ports import free_ports

IMAGES = 64
PEAK_CONNECTIONS = 8
PEAK_S = 10.0
QUIET_REQUESTS = 200
# Health is asked for as a load balancer does, metrics more often than any Prometheus.
PROBES_S = {"/livez": 0.1, "/readyz": 0.1, "/metrics": 2.0}
# What must hold: shares of the peak, of memory, and seconds.
MIN_GOODPUT, MAX_GROWTH, MAX_PROBE_S = 0.9, 0.05, 0.1


@dataclass
class Answers:
    """Status codes, and the seconds that each accepted and each refused request took."""

    statuses: Counter[int] = field(default_factory=Counter)
    accepted_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)

    def note(self, status: int, seconds: float) -> None:
        """Count one answer."""
        self.statuses[status] += 1
        (self.accepted_s if status == 200 else self.refused_s).append(seconds)


class Client:
    """Sends binary tensors to the bare listener.

    Args:
        session: without a limit of connections.
        port: of the bare listener.
        model: that answers.
    """

    def __init__(self, session: aiohttp.ClientSession, port: int, model: str):
        self._session, self._url = session, f"http://127.0.0.1:{port}"
        self._infer = f"{self._url}/v2/models/{model}/infer"

    async def send(self, images: int, answers: Answers) -> None:
        """Send one request and note its answer."""
        tensor = {"name": "images", "datatype": "UINT8", "shape": [images, 28, 28]}
        tensor["parameters"] = {"binary_data_size": 784 * images}
        outputs = [{"name": "logits", "parameters": {"binary_data": True}}]
        head = json.dumps({"inputs": [tensor], "outputs": outputs}).encode()
        headers = {"inference-header-content-length": str(len(head))}
        started = time.perf_counter()
        async with self._session.post(self._infer, data=head + bytes(784 * images), headers=headers) as answer:
            await answer.read()
            answers.note(answer.status, time.perf_counter() - started)

    async def probe(self, path: str) -> float:
        """Return the seconds that a path takes to answer."""
        started = time.perf_counter()
        async with self._session.get(self._url + path) as answer:
            await answer.read()
        return time.perf_counter() - started

    async def quiet_s(self) -> float:
        """Return the median seconds of one image, one request after the other."""
        answers = Answers()
        for _ in range(QUIET_REQUESTS):
            await self.send(1, answers)
        return statistics.median(answers.accepted_s)


async def closed_loop(client: Client, duration_s: float) -> float:
    """Return accepted requests per second where each connection waits for its answer."""
    answers, end = Answers(), time.perf_counter() + duration_s

    async def go_on() -> None:
        while time.perf_counter() < end:
            await client.send(IMAGES, answers)

    await asyncio.gather(*(go_on() for _ in range(PEAK_CONNECTIONS)))
    return len(answers.accepted_s) / duration_s


async def open_loop(client: Client, rate: float, duration_s: float) -> Answers:
    """Send at a constant rate, whatever has been answered, and return what came of it."""
    answers, started = Answers(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * duration_s)):
            await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
            group.create_task(client.send(IMAGES, answers))
    return answers


async def probe_again(client: Client, path: str, values: list[float]) -> None:
    """Ask for a path again and again until cancelled, and keep the seconds of each answer."""
    while True:
        values.append(await client.probe(path))
        await asyncio.sleep(PROBES_S[path])


async def measure(client: Client, resident: Callable[[], int], options: argparse.Namespace) -> bool:
    """Print every figure, and return whether each bound holds."""
    quiet_s, peak = await client.quiet_s(), await closed_loop(client, PEAK_S)
    probes: dict[str, list[float]] = {path: [] for path in PROBES_S}
    before = resident()
    probing = [asyncio.create_task(probe_again(client, path, values)) for path, values in probes.items()]
    answers = await open_loop(client, options.factor * peak, options.duration_s)
    for task in probing:
        task.cancel()
    growth = resident() / before - 1
    await asyncio.sleep(1)
    after_s = await client.quiet_s()
    goodput = len(answers.accepted_s) / options.duration_s / peak
    p99_s = float(np.quantile(answers.accepted_s, 0.99))
    # A full queue, the batch that runs and the own one, at the rate that was reached.
    queue_s = (Settings().queue_size / IMAGES + 2) / (goodput * peak)
    print(f"peak: {peak:.1f} requests/s of {IMAGES} images, {peak * IMAGES:.0f} images/s; {options.model}")
    print(f"{options.factor:g} times the peak for {options.duration_s:g} s: {dict(answers.statuses)}")
    print(f"goodput: {goodput:.1%} of the peak")
    print(
        f"accepted: median {statistics.median(answers.accepted_s) * 1000:.0f} ms, p99 {p99_s * 1000:.0f} ms; ", end=""
    )
    print(f"the queue is {queue_s * 1000:.0f} ms long")
    print(f"refused: {_milliseconds(answers.refused_s)}")
    for path, values in probes.items():
        print(f"{path}: {_milliseconds(values)}")
    slowest_s = max(float(np.quantile(values, 0.99)) for values in probes.values())
    print(f"one image alone: {quiet_s * 1000:.2f} ms before, {after_s * 1000:.2f} ms a second after")
    print(f"memory: {growth:+.1%}")
    return (
        set(answers.statuses) <= {200, 429}
        and goodput >= MIN_GOODPUT
        and p99_s <= queue_s
        and growth < MAX_GROWTH
        and slowest_s <= MAX_PROBE_S
    )


def _milliseconds(seconds: list[float]) -> str:
    if not seconds:
        return "none"
    return f"median {1000 * statistics.median(seconds):.1f} ms, p99 {1000 * float(np.quantile(seconds, 0.99)):.1f} ms"


async def run(options: argparse.Namespace) -> int:
    """Start the service on the first core, measure from the others, stop it."""
    first, *others = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {first})
    ports = free_ports(3)
    with tempfile.TemporaryDirectory() as home:
        server = start_server(ports, home)
        os.sched_setaffinity(0, set(others) or {first})
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=60)
        try:
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
                held = await measure(Client(session, ports[1], options.model), lambda: resident_bytes(server), options)
        finally:
            server.send_signal(signal.SIGTERM)
            ended = server.wait(60)
    return int(ended != 0 or not held)


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration-s", type=float, default=30.0)
    parser.add_argument("--factor", type=float, default=3.0, help="arrivals, in peaks")
    parser.add_argument("--model", default="mnist-resnet")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
