"""Processor time of the server for each request, against a server that checks nothing, on the same machine at once.

Run: .venv/bin/python benchmarks/serving_cpu.py [--repeats 5] [--requests 2000] [--connections 32] [--only binary ...]

Starts the service (one worker, V2_PORT and GRPC_PORT; validation, batcher and metrics on) and `benchmarks/floor.py`,
sends the same requests to both in turn, and writes a table as Markdown. Processor time is read from
/proc/PID/task/*/schedstat of the process that answers; unlike requests per second it changes little when others use
the machine. Every figure is a median, its range in brackets.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import psutil  # type: ignore[import-untyped]
import uvloop

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import floor as floor_server  # noqa: E402
import serving_client as client  # noqa: E402
from soak import free_ports  # noqa: E402

from serving.grpc.stubs import inference_pb2 as pb  # noqa: E402

MODEL = "mnist-cnn"
INFER = f"/v2/models/{MODEL}/infer"
LARGE = 256

Send = Callable[[int, int, int], Coroutine[Any, Any, list[float]]]


@dataclass
class Case:
    """One kind of request.

    Attributes:
        name: of the row.
        send: port, requests, connections -> seconds of each answer.
        is_grpc: which of a server's ports.
        images: in one request; the requests of many are fewer, over fewer connections, as the queue is limited.
        ours: microseconds of processor time for each request, by repeat.
        floor: the same of the other server.
        ours_p50: milliseconds on one connection.
        floor_p50: the same of the other server.
    """

    name: str
    send: Send
    is_grpc: bool = False
    images: int = 1
    ours: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)
    ours_p50: list[float] = field(default_factory=list)
    floor_p50: list[float] = field(default_factory=list)


def _tensor(count: int, **fields: object) -> dict[str, object]:
    return {"name": "images", "datatype": "UINT8", "shape": [count, 28, 28]} | fields


def _http(path: str, body: bytes, headers: dict[str, str]) -> Send:
    request = client.http_request(path, body, headers)
    return lambda port, count, connections: client.send_http(port, request, count, connections)


def _binary(images: "np.ndarray[Any, Any]") -> Send:
    tensor = _tensor(len(images), parameters={"binary_data_size": images.nbytes})
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"content-type": "application/octet-stream", floor_server.LENGTH: str(len(head))}
    return _http(INFER, head + images.tobytes(), headers)


def make_cases(images: "np.ndarray[Any, Any]") -> dict[str, Case]:
    """Return the kinds of requests, by the name on the command line."""
    one = images[:1]
    numbers = json.dumps({"inputs": [_tensor(1, data=one.ravel().tolist())]}).encode()
    png = cv2.imencode(".png", one[0])[1].tobytes()
    call = pb.ModelInferRequest(model_name=MODEL, raw_input_contents=[one.tobytes()])
    call.inputs.add(name="images", datatype="UINT8", shape=[1, 28, 28])
    return {
        "binary": Case("binary v2", _binary(one)),
        "json": Case("JSON v2", _http(INFER, numbers, {"content-type": "application/json"})),
        "png": Case("PNG 28x28 to /predict", _http("/predict", png, {"content-type": "image/png"})),
        "grpc": Case("gRPC v2", lambda port, count, n: client.send_grpc(port, call, count, n), is_grpc=True),
        "large": Case(f"{LARGE} images, binary v2", _binary(images[:LARGE]), images=LARGE),
    }


class Server:
    """A server in a process of its own.

    Args:
        command: starts it.
        ports: of HTTP and gRPC.
        ready: the URL that answers when it is ready.
        environ: its environment.
    """

    def __init__(self, command: list[str], ports: tuple[int, int], ready: str, environ: dict[str, str]):
        self.ports = ports
        self._process = subprocess.Popen(command, cwd=ROOT, env=environ, start_new_session=True)
        try:
            self._wait(ready)
            self._pid = self._listener()
        except BaseException:
            self.stop()
            raise

    def _wait(self, ready: str) -> None:
        for _ in range(600):
            time.sleep(0.1)
            try:
                if httpx.get(ready).status_code != 503:
                    return
            except httpx.TransportError:
                continue
        raise SystemExit(f"{ready} did not answer within a minute")

    def _listener(self) -> int:
        """Return the process that listens on the first port; the others only watch over it."""
        for link in psutil.net_connections("tcp"):
            if link.status == psutil.CONN_LISTEN and link.laddr.port == self.ports[0] and link.pid:
                return int(link.pid)
        raise SystemExit(f"nobody listens on {self.ports[0]}")

    def cpu_s(self) -> float:
        """Return the processor time of the serving process so far."""
        tasks = Path(f"/proc/{self._pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def stop(self) -> None:
        """Stop it and wait."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)


def start_ours(home: str, threads: int) -> Server:
    """Start the service."""
    port, http_port, grpc_port = free_ports(3)
    environ = os.environ | {
        "BENTOML_HOME": home,
        "MNIST_HOST": "127.0.0.1",
        "MNIST_DEFAULT_MODEL": MODEL,
        "MNIST_THREADS": str(threads),
        "MNIST_DRAIN_S": "0",
        "PORT": str(port),
        "V2_PORT": str(http_port),
        "GRPC_PORT": str(grpc_port),
    }
    ready = f"http://127.0.0.1:{http_port}/readyz"
    return Server([sys.executable, "-m", "serving", "serve"], (http_port, grpc_port), ready, environ)


def start_floor(threads: int) -> Server:
    """Start the server that checks nothing."""
    http_port, grpc_port = free_ports(2)
    command = [sys.executable, "benchmarks/floor.py", f"--http-port={http_port}", f"--grpc-port={grpc_port}"]
    ready = f"http://127.0.0.1:{http_port}/"
    return Server(
        [*command, f"--model={MODEL}", f"--threads={threads}"], (http_port, grpc_port), ready, dict(os.environ)
    )


async def measure(server: Server, case: Case, requests: int, connections: int) -> float:
    """Return microseconds of processor time for each request."""
    port = server.ports[case.is_grpc]
    before = server.cpu_s()
    await case.send(port, requests, connections)
    return (server.cpu_s() - before) / requests * 1e6


async def median_ms(server: Server, case: Case, requests: int) -> float:
    """Return the median of the milliseconds of an answer on one connection."""
    return statistics.median(await case.send(server.ports[case.is_grpc], requests, 1)) * 1e3


async def measure_all(cases: list[Case], ours: Server, floor: Server, arguments: argparse.Namespace) -> None:
    """Fill the cases; the first round warms up and is not kept."""
    for repeat in range(arguments.repeats + 1):
        for case in cases:
            share = 8 if case.images > 1 else 1
            requests, connections = arguments.requests // share, max(arguments.connections // share, 1)
            pairs = ((ours, case.ours, case.ours_p50), (floor, case.floor, case.floor_p50))
            for server, cpu, p50 in pairs if repeat % 2 else reversed(pairs):
                cpu_us = await measure(server, case, requests, connections)
                p50_ms = await median_ms(server, case, requests // 8)
                if repeat:
                    cpu.append(cpu_us)
                    p50.append(p50_ms)


def bare_us(images: "np.ndarray[Any, Any]", threads: int, repeats: int) -> list[float]:
    """Return microseconds of processor time of the bare model for `LARGE` images, by repeat."""
    session = floor_server.open_session(MODEL, threads)
    batch = images[:LARGE]
    durations = []
    for _ in range(repeats):
        started = time.process_time()
        for _ in range(50):
            session.run(floor_server.NAMES, {"images": batch})
        durations.append((time.process_time() - started) / 50 * 1e6)
    return durations


def _show(values: list[float], digits: int = 0) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def table(cases: list[Case]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| request | ours, us | floor, us | ratio | ours, p50 ms | floor, p50 ms |",
        "|---|---|---|---|---|---|",
    ]
    for case in cases:
        ratios = [mine / least for mine, least in zip(case.ours, case.floor, strict=True)]
        cells = (
            _show(case.ours),
            _show(case.floor),
            _show(ratios, 2),
            _show(case.ours_p50, 2),
            _show(case.floor_p50, 2),
        )
        lines.append(f"| {case.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime, in every process")
    parser.add_argument("--only", nargs="+", choices=["binary", "json", "png", "grpc", "large"])
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    raw = np.frombuffer((ROOT / "data/t10k-images-idx3-ubyte").read_bytes(), np.uint8, offset=16)
    images = raw.reshape(-1, 28, 28)
    cases = [case for name, case in make_cases(images).items() if not arguments.only or name in arguments.only]
    with tempfile.TemporaryDirectory() as home:
        ours = start_ours(home, arguments.threads)
        try:
            floor = start_floor(arguments.threads)
            try:
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    runner.run(measure_all(cases, ours, floor, arguments))
            finally:
                floor.stop()
        finally:
            ours.stop()
    text = table(cases)
    if any(case.images > 1 for case in cases):
        text += (
            f"\n\nBare onnxruntime, {LARGE} images: {_show(bare_us(images, arguments.threads, arguments.repeats))} us."
        )
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
