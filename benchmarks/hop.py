"""What the way from the event loop to a worker thread and back costs, which `serving.warm_up` weighs against a run.

Run: .venv/bin/python benchmarks/hop.py [--hops 5000]
"""

import argparse
import asyncio
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import uvloop


async def measure(hops: int, busy_s: float, executor: ThreadPoolExecutor) -> tuple[float, float]:
    """Return microseconds of processor time and of delay per hop, beside a loop that works `busy_s` at a time."""
    loop, delays = asyncio.get_running_loop(), list[float]()
    worked_s = 0.0
    cpu_started = time.process_time()
    for _ in range(hops):
        started = time.perf_counter()
        hop = loop.run_in_executor(executor, time.perf_counter)
        if busy_s:
            worked_s += _work(busy_s)
        await hop
        delays.append(time.perf_counter() - started - busy_s)
    cpu_s = time.process_time() - cpu_started - worked_s
    return 1e6 * cpu_s / hops, 1e6 * statistics.median(delays)


def _work(seconds: float) -> float:
    """Hold the event loop, and Python's lock, for so long; return the processor time that took."""
    cpu_started, end = time.thread_time(), time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return time.thread_time() - cpu_started


async def run(hops: int) -> None:
    """Print a line per state of the event loop."""
    with ThreadPoolExecutor(1) as executor:
        await measure(hops // 10, 0.0, executor)
        for name, busy_s in (("idle", 0.0), ("busy for 100 us", 100e-6)):
            cpu_us, delay_us = await measure(hops, busy_s, executor)
            print(f"event loop {name}: {cpu_us:.0f} us of processor time, {delay_us:.0f} us of delay per hop")


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hops", type=int, default=5000)
    uvloop.run(run(parser.parse_args().hops))
    return 0


if __name__ == "__main__":
    sys.exit(main())
