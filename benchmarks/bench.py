"""The service measured in a few minutes, beside a server that checks nothing, on the same machine in the same run.

Run: make bench, or .venv/bin/python -m benchmarks.bench [--repeats 5] [--requests 2000] [--connections 32]
[--seconds 4]

One worker, mnist-cnn, one thread of ONNX Runtime in every process; validation, batcher and metrics on. Processor time
is that of all the server's processes, from /proc/PID/task/*/schedstat; unlike requests per second it changes little
when others use the machine. Servers answer in turns, at first one request of each kind, whose answers must hold what
bare ONNX Runtime says; every figure is a median, its range in brackets.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop

from benchmarks import floor, servers
from benchmarks import serving_client as client
from benchmarks.answers import check
from benchmarks.cases import LARGE, Case, Images, binary_v2, our_cases, test_images, write
from benchmarks.servers import MODEL, Ports, Server
from tests.ports import free_ports

PEAK_SHARE = 0.7
IMAGES_AT_ONCE = f"{LARGE} images"

# Figures of one kind of request and one server, by their name.
Figures = dict[str, list[float]]


def show(values: Sequence[float], digits: int = 0) -> str:
    """Return the median and the range."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def row(*cells: object) -> str:
    """Return one line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


async def measure(server: Server, case: Case, requests: int, connections: int, figures: Figures) -> None:
    """Send a case for a while and note processor time, requests per second and the median on one connection."""
    share = 8 if case.images > 1 else 1
    count = max(requests // share, 1)
    cpu_s, started = server.cpu_s(), time.perf_counter()
    await case.send(server.ports, count, max(connections // share, 1))
    figures["per_s"].append(count / (time.perf_counter() - started))
    figures["cpu_us"].append((server.cpu_s() - cpu_s) / count * 1e6)
    figures["p50_ms"].append(statistics.median(await case.send(server.ports, max(count // 8, 1), 1)) * 1e3)


async def find_peak(server: Server, case: Case, requests: int, connections: int) -> float:
    """Return the requests per second of connections that always have one under way: the median of three runs."""
    figures: Figures = defaultdict(list)
    await check(server, case)
    for _ in range(3):
        await measure(server, case, requests, connections, figures)
    return statistics.median(figures["per_s"])


class Bench:
    """The measurements.

    Args:
        images: of the test set.
        folder: for logs and what the service keeps.
        repeats: of each figure, after one that warms up.
        requests: of each repeat.
        connections: that always have a request under way.
    """

    def __init__(self, images: Images, folder: Path, repeats: int, requests: int, connections: int):
        self._images, self._folder = images, folder
        self._repeats, self._requests, self._connections = repeats, requests, connections

    async def compare(self, contenders: dict[str, Server], cases: dict[str, Case]) -> dict[tuple[str, str], Figures]:
        """Measure the cases on all servers in turns; return the figures by server and case."""
        figures: dict[tuple[str, str], Figures] = defaultdict(lambda: defaultdict(list))
        for case in cases.values():
            for server in contenders.values():
                await check(server, case)
        for repeat in range(self._repeats + 1):
            for kind, case in cases.items():
                for name in list(contenders)[:: 1 if repeat % 2 else -1]:
                    kept = figures[name, kind] if repeat else defaultdict(list)
                    await measure(contenders[name], case, self._requests, self._connections, kept)
        return figures

    async def beside_the_floor(self) -> str:
        """Return the table of all kinds of request, and the share of bare ONNX Runtime."""
        cases = our_cases(self._images)
        ours, bare = servers.start_ours(self._folder), servers.start_floor(self._folder)
        try:
            before_mb = ours.memory_mb()
            figures = await self.compare({"ours": ours, "floor": bare}, cases)
            after_mb = ours.memory_mb()
        finally:
            ours.stop()
            bare.stop()
        lines = [
            row("Request", "CPU, us", "floor, us", "ratio", "requests/s", "floor", "median ms, 1 connection", "floor"),
            row(*["---"] * 8),
        ]
        for kind in cases:
            mine, least = figures["ours", kind], figures["floor", kind]
            ratios = [one / other for one, other in zip(mine["cpu_us"], least["cpu_us"], strict=True)]
            cells = [show(mine["cpu_us"]), show(least["cpu_us"]), show(ratios, 2)]
            cells += [show(each["per_s"]) for each in (mine, least)]
            lines.append(row(kind, *cells, *(show(each["p50_ms"], 2) for each in (mine, least))))
        share = self._share_of_bare(figures["ours", IMAGES_AT_ONCE])
        memory = f"Memory of worker and parent: {before_mb:.0f} MB at the start, {after_mb:.0f} MB after the requests."
        return "\n".join([*lines, "", share, "", memory])

    def _share_of_bare(self, ours: Figures) -> str:
        session = floor.open_session(MODEL, 1)
        batch, per_s = self._images[:LARGE], []
        for _ in range(self._repeats):
            started = time.perf_counter()
            for _ in range(50):
                session.run(floor.NAMES, {"images": batch})
            per_s.append(50 * LARGE / (time.perf_counter() - started))
        images_per_s = [LARGE * each for each in ours["per_s"]]
        share = statistics.median(images_per_s) / statistics.median(per_s)
        return (
            f"{LARGE} images in one binary request: {show(images_per_s)} images/s; bare ONNX Runtime "
            f"{show(per_s)}; share {share:.0%}."
        )

    async def at_a_rate(self, seconds: float) -> str:
        """Return the times at a constant rate of arrivals, of the service and of the floor in turns.

        The client is awake all the time; what it, the kernel and other machines on the same hardware take shows in the
        floor's tail as it does in ours.
        """
        case = binary_v2(self._images[:1])
        running = {"ours": servers.start_ours(self._folder), "the floor": servers.start_floor(self._folder)}
        found: dict[str, list[list[float]]] = defaultdict(list)
        try:
            per_s = PEAK_SHARE * await find_peak(running["ours"], case, self._requests * 2, self._connections)
            for _ in range(self._repeats):
                for name, server in running.items():
                    answers = await client.send_at_rate(server.ports.http, case.request, per_s, seconds, 64)
                    found[name].append(sorted((1e3 * answers[:, 1]).tolist()))
        finally:
            for server in running.values():
                server.stop()
        lines = [
            f"Open loop, binary, {per_s:,.0f} requests/s ({PEAK_SHARE:.0%} of the peak), {self._repeats} times "
            f"{seconds:.0f} s; milliseconds:",
            "",
            row("", "median", "90th percentile", "99th", "99.9th", "slowest"),
            row(*["---"] * 6),
        ]
        for name, runs in found.items():
            cells = [show([run[int(len(run) * share)] for run in runs], 2) for share in (0.5, 0.9, 0.99, 0.999)]
            lines.append(row(name, *cells, f"{max(run[-1] for run in runs):.1f}"))
        return "\n".join(lines)

    def starts(self) -> str:
        """Return the time from start to ready, and the memory then."""
        seconds, memory_mb = [], []
        for _ in range(self._repeats):
            ours = servers.start_ours(self._folder)
            seconds.append(ours.ready_s)
            memory_mb.append(ours.memory_mb())
            ours.stop()
        return f"Start to ready: {show(seconds, 2)} s, {show(memory_mb)} MB with the parent."

    async def other_ways(self) -> str:
        """Return the cost with two workers, and through BentoML's port."""
        starts: dict[str, Callable[[], Server]] = {
            "one worker": lambda: servers.start_ours(self._folder),
            "two workers": lambda: servers.start_ours(self._folder, workers=2),
            "BentoML's port": lambda: servers.start_ours(self._folder, through_bentoml=True),
        }
        running = {name: start() for name, start in starts.items()}
        try:
            figures = await self.compare(running, {"binary": binary_v2(self._images[:1])})
        finally:
            for server in running.values():
                server.stop()
        parts = []
        for name in starts:
            found = figures[name, "binary"]
            parts.append(f"{name} {show(found['cpu_us'])} us, {show(found['per_s'])} requests/s")
        return f"Binary, the client on the same cores: {'; '.join(parts)}."

    async def ceiling(self) -> str:
        """Return what the client itself can send and take."""
        case, (port,) = binary_v2(self._images[:1]), free_ports(1)
        command = [sys.executable, "benchmarks/canned.py", str(port), str(len(case.request))]
        canned = Server(command, Ports(port), "/", {}, self._folder / "canned.log")
        try:
            figures: Figures = defaultdict(list)
            for _ in range(self._repeats):
                await measure(canned, case, self._requests * 2, self._connections, figures)
        finally:
            canned.stop()
        return f"The client's own ceiling, binary, against canned answers: {show(figures['per_s'])} requests/s."


async def run(arguments: argparse.Namespace, folder: Path) -> str:
    """Measure everything and return the report."""
    bench = Bench(test_images(), folder, arguments.repeats, arguments.requests, arguments.connections)
    parts = [f"{servers.describe_machine()}."]
    parts.append(await bench.beside_the_floor())
    parts.append(await bench.at_a_rate(arguments.seconds))
    parts.append(bench.starts())
    parts.append(await bench.other_ways())
    parts.append(await bench.ceiling())
    return "\n\n".join(parts)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run at a constant rate")
    parser.add_argument("--output", type=Path, default=servers.ROOT / "build/bench.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write(uvloop.run(run(arguments, Path(folder))), arguments.output)


if __name__ == "__main__":
    main()
