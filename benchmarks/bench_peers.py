"""The service beside other model servers: the same ONNX file, the same client, the same machine, in turns.

Run: make bench-peers, or .venv/bin/python -m benchmarks.bench_peers [--repeats 3] [--only NAME ...] [--readme]

Each peer is installed from benchmarks/peers/requirements into an environment of its own below build/peers, and serves
mnist-cnn by one worker with one thread of ONNX Runtime. All servers run at once and are sent each kind of request in
turns; Ray takes a tenth of a core even when nothing is sent to it. TorchServe needs Java and torch, 5 GB. A peer that
cannot be installed, does not start or answers wrongly is left out, and the reason told. Writes docs/peers.md and
docs/peers.svg, and with --readme the table in README.md.
"""

import argparse
import re
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path

import uvloop

from benchmarks import servers
from benchmarks.answers import check
from benchmarks.bench import Figures, measure, row, show
from benchmarks.cases import LARGE, Images, test_images, write
from benchmarks.contenders import AT_ONCE, CONTENDERS, FLOOR, HANDWRITTEN, OURS, TRITON, Contender, version_of
from benchmarks.servers import ROOT, Server

KINDS = ("JSON", "binary", "gRPC", "PNG")
CONNECTIONS = 32

# One turn of one server: about a second, but no fewer and no more requests than these.
TURN_S, LEAST, MOST = 1.0, 256, 4000

# What must hold: kind, figure, who is the measure, the most or least that the ratio may be.
BOUNDS = [
    ("binary", "cpu_us", FLOOR, "at most", 1.5),
    ("JSON", "cpu_us", FLOOR, "at most", 1.2),
    ("PNG", "cpu_us", FLOOR, "at most", 2.2),
    ("gRPC", "cpu_us", TRITON, "at most", 0.65),
    ("JSON", "per_s", TRITON, "at least", 2.5),
    ("binary", "per_s", TRITON, "at least", 2.5),
    ("gRPC", "per_s", TRITON, "at least", 2.5),
    ("JSON", "per_s", HANDWRITTEN, "at least", 1.0),
    ("binary", "per_s", HANDWRITTEN, "at least", 1.0),
    ("PNG", "per_s", HANDWRITTEN, "at least", 1.0),
]

All = dict[tuple[str, str], Figures]


async def compare(running: dict[str, Server], contenders: list[Contender], images: Images, repeats: int) -> All:
    """Measure every kind of request on every server that takes it, in turns; the first round warms up."""
    figures: All = defaultdict(lambda: defaultdict(list))
    cases = {contender.name: contender.cases(images) for contender in contenders}
    counts: dict[tuple[str, str], int] = {}
    for repeat in range(repeats + 1):
        for kind in (*KINDS, AT_ONCE):
            for name in list(running)[:: 1 if repeat % 2 else -1]:
                if case := cases[name].get(kind):
                    kept = figures[name, kind] if repeat else defaultdict(list)
                    await measure(running[name], case, counts.get((name, kind), LEAST), CONNECTIONS, kept)
                    if not repeat:
                        counts[name, kind] = int(min(max(kept["per_s"][0] * TURN_S, LEAST), MOST))
    return figures


def table(figures: All, running: dict[str, Server]) -> str:
    """Return processor time and requests per second of each server and kind, and the rest."""
    head = ["Server", *KINDS, f"{LARGE} images, images/s", "Median ms, 1 connection", "Start, s", "Memory, MB"]
    lines = [row(*head), row(*["---"] * len(head))]
    for name, server in running.items():
        cells = [_cell(figures.get((name, kind))) for kind in KINDS]
        large = figures.get((name, AT_ONCE))
        cells.append(f"{LARGE * statistics.median(large['per_s']):,.0f}" if large else "-")
        quick = figures.get((name, "binary")) or figures.get((name, "JSON"))
        cells.append(show(quick["p50_ms"], 2) if quick else "-")
        lines.append(row(name, *cells, f"{server.ready_s:.1f}", f"{server.memory_mb():.0f}"))
    return "\n".join(lines)


def _cell(found: Figures | None) -> str:
    return f"{show(found['cpu_us'])} us, {statistics.median(found['per_s']):,.0f}/s" if found else "-"


def bounds(figures: All) -> str:
    """Return what must hold and what was found."""
    lines = [row("What must hold", "Found", "Holds"), row("---", "---", "---")]
    for kind, figure, other, sense, bound in BOUNDS:
        mine, theirs = figures.get((OURS, kind)), figures.get((other, kind))
        if not mine or not theirs:
            continue
        ratios = [one / two for one, two in zip(mine[figure], theirs[figure], strict=True)]
        ratio = statistics.median(ratios)
        holds = ratio <= bound if sense == "at most" else ratio >= bound
        what = "processor time" if figure == "cpu_us" else "requests/s"
        text = f"{kind}, {what}: {sense} {bound:g} times {other}"
        lines.append(row(text, show(ratios, 2), "yes" if holds else "no"))
    return "\n".join(lines)


def plot(figures: All, names: list[str], path: Path) -> None:
    """Draw the processor time of every server and kind."""
    from matplotlib.figure import Figure

    figure = Figure((9, 4.5), layout="tight")
    axes = figure.subplots()
    width = 0.8 / len(names)
    for place, name in enumerate(names):
        found = {kind: figures[name, kind]["cpu_us"] for kind in KINDS if (name, kind) in figures}
        spots = [KINDS.index(kind) + (place - len(names) / 2 + 0.5) * width for kind in found]
        axes.bar(spots, [statistics.median(values) for values in found.values()], width, label=name)
    axes.set_yscale("log")
    axes.set_xticks(range(len(KINDS)), KINDS)
    axes.set_ylabel("processor time of the server, us per request")
    axes.legend(fontsize=8, ncols=2)
    axes.grid(axis="y", alpha=0.3)
    figure.savefig(path)


def update_readme(text: str) -> None:
    """Replace what stands between the marks in the README."""
    path = ROOT / "README.md"
    begin, end = "<!-- bench-peers -->\n", "<!-- /bench-peers -->"
    found = path.read_text(encoding="utf-8")
    path.write_text(re.sub(f"{begin}.*?{end}", lambda _: f"{begin}{text}\n{end}", found, flags=re.S), encoding="utf-8")


def start_all(contenders: list[Contender], folder: Path) -> tuple[dict[str, Server], list[str]]:
    """Start the servers one after the other; return those that run, and what is wrong with the others."""
    running, failures = {}, []
    for contender in contenders:
        try:
            running[contender.name] = contender.start(folder)
        except Exception as error:  # a peer that does not run here is told, and the others go on
            failures.append(f"{contender.name} did not start: {error}")
    return running, failures


async def leave_out_wrong(running: dict[str, Server], contenders: list[Contender], images: Images) -> list[str]:
    """Stop the servers that answer a kind of request wrongly; return what is wrong with them."""
    failures = []
    for contender in contenders:
        for kind, case in contender.cases(images).items():
            try:
                await check(running[contender.name], case)
            except Exception as error:  # a peer that does not work here is told, and the others go on
                failures.append(f"{contender.name} does not answer {kind} rightly: {error}")
                running.pop(contender.name).stop()
                break
    return failures


async def run(arguments: argparse.Namespace, folder: Path) -> None:
    """Measure and write."""
    chosen = [each for each in CONTENDERS if not arguments.only or each.name in arguments.only]
    machine = servers.describe_machine()
    running, failures = start_all(chosen, folder)
    try:
        started = [each for each in chosen if each.name in running]
        failures += await leave_out_wrong(running, started, test_images())
        present = [each for each in chosen if each.name in running]
        figures = await compare(running, present, test_images(), arguments.repeats)
        overview = table(figures, running)
    finally:
        for server in running.values():
            server.stop()
    intro = (
        f"{machine}. Medians of {arguments.repeats} turns, ranges in brackets: processor time of all the server's "
        f"processes for each request, and requests per second, over {CONNECTIONS} connections; the client on the same "
        f"machine. Memory: proportional set size of all its processes."
    )
    summary = "\n\n".join([intro, overview, *failures])
    versions = "\n".join(f"- {each.name}: {version_of(each)}" for each in present)
    parts = ["# Beside other servers", summary, bounds(figures), versions, "![Processor time](peers.svg)"]
    write("\n\n".join(parts), ROOT / "docs/peers.md")
    plot(figures, list(running), ROOT / "docs/peers.svg")
    if arguments.readme:
        update_readme(summary)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=[each.name for each in CONTENDERS])
    parser.add_argument("--readme", action="store_true", help="also replace the table in README.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(run(arguments, Path(folder)))


if __name__ == "__main__":
    main()
