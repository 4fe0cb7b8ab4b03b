"""What others notice while somebody attacks: p99 of ordinary requests, quiet and under each attack, and memory.

Run: .venv/bin/python benchmarks/attack.py [--seconds 5] [--rounds 3] [KIND ...]

Ordinary clients send a binary tensor, a 28x28 PNG and a 512x512 PNG, in turns, over keep-alive connections. Each attack
has a quiet time before it, and comes from a process of its own, at the lowest priority and at no more than 1 Gbit/s: it
is the server's time that counts. Exits with 1 if a p99 is more than three times the quiet one, or memory grows beyond
twice what may be pending.
"""

import argparse
import asyncio
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import aiohttp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.attacks import INFER, JSON_BYTES, KINDS, stroke, tensor
from benchmarks.soak import resident_bytes, start_server
from serving.settings import Settings
from tests.ports import free_ports

CLIENTS = 4
PAUSE_S = 0.01
MAX_RATIO = 3.0
MAX_GROWTH_BYTES = 2 * Settings().max_pending_bytes


def requests() -> list[tuple[str, bytes, dict[str, str]]]:
    """Return path, body and headers of each ordinary request."""
    head = tensor(1, parameters={"binary_data_size": 784})
    return [
        (INFER, head + bytes(784), {JSON_BYTES: str(len(head))}),
        ("/predict", stroke(28), {}),
        ("/predict", stroke(512), {}),
    ]


async def ordinary(port: int, seconds: float) -> list[float]:
    """Return the seconds that each ordinary request took."""
    stop, taken = time.perf_counter() + seconds, []

    async def go_on(session: aiohttp.ClientSession) -> None:
        while time.perf_counter() < stop:
            for path, body, headers in requests():
                started = time.perf_counter()
                async with session.post(f"http://127.0.0.1:{port}{path}", data=body, headers=headers) as answer:
                    await answer.read()
                    assert answer.status == 200, await answer.text()
                taken.append(time.perf_counter() - started)
                await asyncio.sleep(PAUSE_S)

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        await asyncio.gather(*(go_on(session) for _ in range(CLIENTS)))
    return taken


class Memory:
    """The greatest resident memory of the server while this is open."""

    def __init__(self, server: "subprocess.Popen[bytes]"):
        self._server, self._stop, self.peak_bytes = server, threading.Event(), 0
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.peak_bytes = max(self.peak_bytes, resident_bytes(self._server))

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def p99_ms(taken: list[float]) -> float:
    """Return the 99th percentile in milliseconds."""
    return 1000 * float(np.quantile(taken, 0.99))


def attacked_ms(kind: str, ports: list[int], seconds: float) -> float:
    """Return the p99 of ordinary requests under an attack.

    Raises:
        RuntimeError: the attack did not begin, or did not last; what was measured was quiet.
    """
    command = ["nice", "-n", "19", sys.executable, "benchmarks/attacks.py", kind]
    command += [str(int(seconds) + 2), str(ports[1]), str(ports[2])]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as attack:
        assert attack.stdout is not None
        if not attack.stdout.readline():
            raise RuntimeError(f"{kind}: the attack did not begin")
        time.sleep(1)
        taken = asyncio.run(ordinary(ports[1], seconds))
    if attack.returncode:
        raise RuntimeError(f"{kind}: the attack failed")
    return p99_ms(taken)


def measure(kind: str, ports: list[int], server: "subprocess.Popen[bytes]", options: argparse.Namespace) -> bool:
    """Print the row of an attack, and return whether its bounds hold."""
    quiet, attacked, before = [], [], resident_bytes(server)
    with Memory(server) as memory:
        for _ in range(options.rounds):
            quiet.append(p99_ms(asyncio.run(ordinary(ports[1], options.seconds))))
            attacked.append(attacked_ms(kind, ports, options.seconds))
    ratio = statistics.median(attacked) / statistics.median(quiet)
    growth = memory.peak_bytes - before
    holds = ratio <= MAX_RATIO and growth <= MAX_GROWTH_BYTES
    print(
        f"| {kind} | {statistics.median(quiet):.1f} | {statistics.median(attacked):.1f} | {ratio:.1f} | "
        f"{growth / 2**20:.0f} |{'' if holds else ' too much |'}",
        flush=True,
    )
    return holds


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="; ".join(KINDS))
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ports = free_ports(3)
    with tempfile.TemporaryDirectory() as home:
        server = start_server(ports, home)
        print("| Attack | p99 quiet, ms | p99 under attack, ms | ratio | memory, MiB |\n|---|---|---|---|---|")
        try:
            held = [measure(kind, ports, server, options) for kind in options.kinds or KINDS]
        finally:
            server.send_signal(signal.SIGTERM)
            ended = server.wait(60)
        return int(ended != 0 or not all(held))


if __name__ == "__main__":
    sys.exit(main())
