"""The published models on the CPU and on the GPU, side by side: through the service's own runtime, and served.

Run: .venv/bin/python -m benchmarks.devices [--models mnist-cnn mnist-resnet] [--batches 1 8 64 256 2048] [--repeats 5]
[--threads N]

Images are NumPy arrays in the process's memory, as a request brings them: what it takes to copy them to the device and
the answers back is in the figures. Served: one worker, binary requests of one image over 64 connections and of 256
images over 8, the client on the same machine. Devices run in turns; every figure is a median, its range in brackets.
Without a GPU there is only the CPU.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import uvloop

from benchmarks.bench import Bench, row, show
from benchmarks.cases import LARGE, Images, binary_v2, test_images, write
from benchmarks.servers import ROOT, Server, describe_machine, model_file, start_ours
from serving.runtime import CUDA, Device, OnnxModel

# Long enough for a clock, short enough for turns.
TURN_S = 0.2
REQUESTS, CONNECTIONS = 2000, 64


def devices_here(name: str) -> list[Device]:
    """Return the devices on which a model runs here."""
    return ["cpu", "cuda"] if OnnxModel(model_file(name)).provider == CUDA else ["cpu"]


def describe_gpu() -> str:
    """Return name and driver of the GPU."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def images_per_s(model: OnnxModel, images: Images) -> float:
    """Return images per second of one batch after another, for about `TURN_S` seconds."""
    count, started = 0, time.perf_counter()
    while (taken_s := time.perf_counter() - started) < TURN_S:
        model.run(images)
        count += len(images)
    return count / taken_s


def in_the_runtime(
    name: str, devices: Sequence[Device], batches: Sequence[int], repeats: int, threads: int
) -> list[str]:
    """Return one line of the table for each batch size."""
    models = {device: OnnxModel(model_file(name), device, threads) for device in devices}
    digits, lines = test_images(), []
    for size in batches:
        rates: dict[Device, list[float]] = defaultdict(list)
        for repeat in range(repeats + 1):
            for device, model in models.items():
                rate = images_per_s(model, digits[:size])
                if repeat:
                    rates[device].append(rate)
        cells = [(show(found), f"{1e3 * size / statistics.median(found):.2f}") for found in rates.values()]
        lines.append(row(name, size, *(cell for pair in cells for cell in pair)))
    return lines


async def served(name: str, devices: Sequence[Device], repeats: int, threads: int, folder: Path) -> list[str]:
    """Return one line of the table for each size of request."""
    running: dict[str, Server] = {
        device: start_ours(folder, threads=threads, MNIST_DEFAULT_MODEL=name, MNIST_DEVICE=device) for device in devices
    }
    cases = {str(size): binary_v2(test_images()[:size], name) for size in (1, LARGE)}
    try:
        figures = await Bench(test_images(), folder, repeats, REQUESTS, CONNECTIONS).compare(running, cases)
    finally:
        for server in running.values():
            server.stop()
    lines = []
    for size, case in cases.items():
        cells: list[str] = []
        for device in devices:
            found = figures[device, size]
            cells += [show([case.images * each for each in found["per_s"]]), show(found["p50_ms"], 2)]
        lines.append(row(f"{name}, served", size, *cells))
    return lines


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["mnist-cnn", "mnist-resnet"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 64, 256, 2048])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of ONNX Runtime on the CPU")
    parser.add_argument("--output", type=Path, default=ROOT / "build/devices.md")
    given = parser.parse_args()
    devices = devices_here(given.models[0])
    headings = [text for device in devices for text in (f"{device}, images/s", "ms")]
    machine = describe_machine() + (f"; {describe_gpu()}" if "cuda" in devices else "")
    lines = [machine, "", row("Model", "Images at once", *headings), row(*["---"] * (2 + len(headings)))]
    with tempfile.TemporaryDirectory() as folder:
        for name in given.models:
            lines += in_the_runtime(name, devices, given.batches, given.repeats, given.threads)
            lines += uvloop.run(served(name, devices, given.repeats, given.threads, Path(folder)))
    write("\n".join(lines), given.output)


if __name__ == "__main__":
    main()
