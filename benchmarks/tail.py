"""The slowest answers at a constant rate: which of them are the service's, and which the machine's.

Run: as root, .venv/bin/python -m benchmarks.tail [--turns 10] [--seconds 60]; Linux, two cores or more.

One worker, mnist-cnn, binary tensors, 70 % of the rate that it reaches here, beside a server that checks nothing, which
has a quarter of each turn. Server and client have a core each, before everything else on the machine, and are watched:
see `benchmarks.disturbances`. An answer counts as undisturbed where, from when its request was due, neither core was
taken away or slowed, nor were the servers catching up with what that had delayed.
"""

import argparse
import contextlib
import gc
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import uvloop

from benchmarks import disturbances, servers
from benchmarks import serving_client as client
from benchmarks.bench import PEAK_SHARE, find_peak, row
from benchmarks.cases import binary_v2, test_images, write
from benchmarks.disturbances import PRIORITY, Watchers

SERVERS_CORE, CLIENTS_CORE = 0, 1
CONNECTIONS = 32
OURS, FLOOR = "mnist-reader", "bare Starlette"
FLOOR_SHARE = 0.25
STALL_S = 0.02

# The kernel stops even real-time processes for 50 ms of each second, unless this is -1.
THROTTLE = Path("/proc/sys/kernel/sched_rt_runtime_us")

Times = npt.NDArray[np.float64]


@contextlib.contextmanager
def unthrottled() -> Iterator[None]:
    """Let real-time processes run on, as long as this lasts."""
    before = THROTTLE.read_text(encoding="ascii")
    THROTTLE.write_text("-1", encoding="ascii")
    try:
        yield
    finally:
        THROTTLE.write_text(before, encoding="ascii")


@contextlib.contextmanager
def in_front() -> Iterator[None]:
    """Put this process before others on its core, without its own garbage collection."""
    gc.disable()
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        gc.enable()


class Tail:
    """The answers of a server, those that nothing disturbed apart."""

    def __init__(self) -> None:
        self.all_s: list[Times] = []
        self.undisturbed_s: list[Times] = []
        self.seconds, self.disturbed_s, self.longest_s = 0.0, 0.0, 0.0

    def add(self, answers: Times, found: list[disturbances.Spans]) -> None:
        """Take a turn: answers as `send_at_rate` returns them, and the spans of each core."""
        due, took_s = answers.T
        begin, end = due.min(), (due + took_s).max()
        spans = disturbances.unite(np.concatenate(found))
        spans = spans[(spans[:, 1] > begin) & (spans[:, 0] < end)]
        self.seconds += end - begin
        self.disturbed_s += float((spans[:, 1] - spans[:, 0]).sum())
        self.longest_s = max([self.longest_s, *(spans[:, 1] - spans[:, 0])])
        touched = disturbances.touched(due, due + took_s, disturbances.caught_up(spans, PEAK_SHARE))
        self.all_s.append(took_s)
        self.undisturbed_s.append(took_s[~touched])

    def rows(self, name: str) -> list[str]:
        """Return the lines of the table: all answers, and the undisturbed ones."""
        every, undisturbed = np.concatenate(self.all_s), np.concatenate(self.undisturbed_s)
        share = f"undisturbed ({len(undisturbed) / len(every):.1%})"
        return [self._row(f"{name}, all", every), self._row(f"{name}, {share}", undisturbed)]

    @staticmethod
    def _row(name: str, took_s: Times) -> str:
        median, p99, p999 = np.quantile(took_s, [0.5, 0.99, 0.999]) * 1e3
        stalls = int((took_s > STALL_S).sum())
        cells = [f"{median:.3f}", f"{p99:.2f}", f"{p99 / median:.1f}", f"{p999:.2f}", f"{took_s.max() * 1e3:.1f}"]
        return row(name, f"{len(took_s):,}", *cells, stalls)


async def measure(turns: int, seconds: float, requests: int, folder: Path) -> tuple[float, dict[str, Tail]]:
    """Return the requests per second, and what came of each server."""
    case = binary_v2(test_images()[:1])
    running = {OURS: servers.start_ours(folder), FLOOR: servers.start_floor(folder)}
    tails: dict[str, Tail] = defaultdict(Tail)
    os.sched_setaffinity(0, {CLIENTS_CORE})
    try:
        for server in running.values():
            server.put_in_front(SERVERS_CORE, PRIORITY)
        with Watchers((SERVERS_CORE, CLIENTS_CORE), folder), in_front():
            per_s = PEAK_SHARE * await find_peak(running[OURS], case, requests, CONNECTIONS)
        for _ in range(turns):
            for name, server in running.items():
                lasting_s = seconds if name == OURS else FLOOR_SHARE * seconds
                with Watchers((SERVERS_CORE, CLIENTS_CORE), folder) as watchers, in_front():
                    answers = await client.send_at_rate(server.ports.http, case.request, per_s, lasting_s, 64)
                tails[name].add(answers, watchers.found())
    finally:
        for server in running.values():
            server.stop()
    return per_s, tails


async def run(turns: int, seconds: float, requests: int, folder: Path) -> str:
    """Measure and return the report."""
    machine = servers.describe_machine()
    per_s, tails = await measure(turns, seconds, requests, folder)
    parts = [
        f"{machine}. Binary, {per_s:,.0f} requests/s ({PEAK_SHARE:.0%} of the peak), {turns} times {seconds:.0f} s, "
        f"the bare server {FLOOR_SHARE:.0%} as long; a core for the server and one for the client; milliseconds:"
    ]
    head = row("", "answers", "median", "99th percentile", "over the median", "99.9th", "slowest", "above 20 ms")
    parts.append(
        "\n".join([head, row(*["---"] * 8), *(line for name, tail in tails.items() for line in tail.rows(name))])
    )
    for name, tail in tails.items():
        share, longest_ms = tail.disturbed_s / tail.seconds, tail.longest_s * 1e3
        parts.append(f"{name}: a core was away or slow for {share:.1%} of the time, {longest_ms:.0f} ms at most.")
    return "\n\n".join(parts)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each turn")
    parser.add_argument("--requests", type=int, default=20000, help="of each run that looks for the peak")
    parser.add_argument("--output", type=Path, default=servers.ROOT / "build/tail.md")
    arguments = parser.parse_args()
    if (os.cpu_count() or 1) < 2 or not os.access(THROTTLE, os.W_OK):
        parser.error("needs two cores, Linux and the right to real-time priority: run it as root")
    with tempfile.TemporaryDirectory() as folder, unthrottled():
        report = uvloop.run(run(arguments.turns, arguments.seconds, arguments.requests, Path(folder)))
    write(report, arguments.output)


if __name__ == "__main__":
    main()
