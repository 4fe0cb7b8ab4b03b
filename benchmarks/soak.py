"""Valid and invalid traffic over HTTP and gRPC for minutes: wrong answers, errors, growth of memory.

Run: .venv/bin/python benchmarks/soak.py [--duration-s 600] [--clients 4]

Starts the service on free ports with the committed models, sends until the time is over, and prints one figure a line.
Exits with 1 if an answer was wrong, a 5xx or a broken connection came, or memory grew by 5 % or more after the first
minute.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import numpy.typing as npt
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from serving.repository import Repository, load  # noqa: E402
from tests.ports import free_ports  # noqa: E402

MODEL = "mnist-cnn"
MAX_GROWTH = 0.05
WARM_S = 60.0

Images = npt.NDArray[np.uint8]

# Requests that must be refused: path, body, statuses allowed.
INVALID: list[tuple[str, bytes, set[int]]] = [
    ("/predict", b"{", {400}),
    ("/predict", b"no picture", {422}),
    ("/predict", b"\x89PNG\r\n\x1a\n" + b"\0" * 200, {422}),
    ("/predict", json.dumps({"pixels": [0.5] * 784}).encode(), {400}),
    ("/predict?model=none", b"x", {404}),
    (f"/v2/models/{MODEL}/infer", b'{"inputs": []}', {400}),
    ("/v2/models/none/infer", b"{}", {404}),
    ("/nothing", b"", {404}),
]


def content_of(answer: httpx.Response) -> dict[str, Any]:
    """Return the object that an answer holds, an empty one if it holds something else."""
    try:
        content = answer.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


class Soak:
    """The traffic and what came of it.

    Args:
        images: uint8 (N, 28, 28).
        digits: what the model itself says of them, (N,).
        ports: of HTTP through BentoML, bare HTTP, gRPC.
    """

    def __init__(self, images: Images, digits: npt.NDArray[np.int64], ports: list[int]):
        self.images, self.digits, self.ports = images, digits, ports
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.stop = threading.Event()

    def note(self, kind: str, right: bool, what: str = "") -> None:
        """Count an answer, and keep what was wrong."""
        self.counts[kind] += 1
        if not right:
            self.wrong.append(f"{kind}: {what}")

    def _pick(self, count: int) -> npt.NDArray[np.int64]:
        return np.array([random.randrange(len(self.images)) for _ in range(count)])

    def send_pictures(self, client: httpx.Client) -> None:
        """Send one to eight PNG files."""
        places = self._pick(random.randint(1, 8))
        files = [("f", (f"{place}.png", cv2.imencode(".png", self.images[place])[1].tobytes())) for place in places]
        answer = client.post(f"http://127.0.0.1:{random.choice(self.ports[:2])}/predict", files=files)
        found = [each.get("digit") for each in content_of(answer).get("predictions", [])]
        self.note(f"pictures {answer.status_code}", found == self.digits[places].tolist(), answer.text[:200])

    def send_tensor(self, client: httpx.Client) -> None:
        """Send one to 100 images as a binary tensor."""
        places = self._pick(random.randint(1, 100))
        tensor = {"name": "images", "datatype": "UINT8", "shape": [len(places), 28, 28]}
        tensor["parameters"] = {"binary_data_size": 784 * len(places)}
        head = json.dumps({"inputs": [tensor], "outputs": [{"name": "probabilities"}]}).encode()
        answer = client.post(
            f"http://127.0.0.1:{self.ports[1]}/v2/models/{MODEL}/infer",
            content=head + self.images[places].tobytes(),
            headers={"inference-header-content-length": str(len(head))},
        )
        outputs = content_of(answer).get("outputs") or [{"data": []}]
        rows = np.array(outputs[0]["data"], np.float32).reshape(-1, 10)
        right = rows.shape[0] == len(places) and bool((rows.argmax(axis=1) == self.digits[places]).all())
        self.note(f"tensors {answer.status_code}", right, answer.text[:200])

    def send_invalid(self, client: httpx.Client) -> None:
        """Send what must be refused."""
        path, body, allowed = random.choice(INVALID)
        answer = client.post(f"http://127.0.0.1:{random.choice(self.ports[:2])}{path}", content=body)
        self.note(f"invalid {answer.status_code}", answer.status_code in allowed, f"{path} {answer.text[:200]}")

    def run_http(self) -> None:
        """Send over HTTP until the time is over."""
        with httpx.Client(timeout=30) as client:
            while not self.stop.is_set():
                send = random.choices([self.send_pictures, self.send_tensor, self.send_invalid], [4, 4, 2])[0]
                try:
                    send(client)
                except Exception as error:  # no connection, or an answer of another form
                    self.note("http broken", False, repr(error))

    def run_grpc(self) -> None:
        """Send over gRPC until the time is over; a tenth of the requests has the wrong number of bytes."""
        import tritonclient.grpc as triton

        with triton.InferenceServerClient(f"127.0.0.1:{self.ports[2]}") as client:
            while not self.stop.is_set():
                places = self._pick(random.randint(1, 100))
                valid = random.random() > 0.1
                tensor = triton.InferInput("images" if valid else "x", [len(places), 28, 28], "UINT8")
                tensor.set_data_from_numpy(self.images[places])
                try:
                    rows = client.infer(MODEL, [tensor]).as_numpy("probabilities")
                except triton.InferenceServerException as error:
                    refused = error.status() == "StatusCode.INVALID_ARGUMENT"
                    self.note(f"grpc {error.status()}", refused and not valid, str(error))
                    continue
                right = valid and rows is not None and rows.argmax(-1).tolist() == self.digits[places].tolist()
                self.note("grpc OK", right, "another digit")


def start_server(ports: list[int], home: str) -> "subprocess.Popen[bytes]":
    """Start the service and wait until it is ready."""
    environ = os.environ | {"BENTOML_HOME": home, "MNIST_HOST": "127.0.0.1", "MNIST_DEFAULT_MODEL": MODEL}
    environ |= dict(zip(("PORT", "V2_PORT", "GRPC_PORT"), map(str, ports), strict=True))
    server = subprocess.Popen([sys.executable, "-m", "serving", "serve"], cwd=ROOT, env=environ)
    for _ in range(600):
        time.sleep(0.1)
        try:
            if httpx.get(f"http://127.0.0.1:{ports[0]}/readyz").status_code == 200:
                return server
        except httpx.TransportError:
            continue
    raise SystemExit("the service was not ready within a minute")


def resident_bytes(server: "subprocess.Popen[bytes]") -> int:
    """Return the resident memory of the server's processes."""
    root = psutil.Process(server.pid)
    return sum(each.memory_info().rss for each in (root, *root.children(recursive=True)))


def watch_memory(server: "subprocess.Popen[bytes]", duration_s: float) -> float:
    """Wait, and return how much of its first minute's memory the server has gained since."""
    warm_s = min(WARM_S, duration_s / 3)
    time.sleep(warm_s)
    before = resident_bytes(server)
    time.sleep(duration_s - warm_s)
    after = resident_bytes(server)
    print(f"memory after {warm_s:.0f} s: {before / 2**20:.1f} MiB, at the end: {after / 2**20:.1f} MiB")
    return after / before - 1


def main() -> int:
    """Run the soak and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--duration-s", type=float, default=600.0)
    parser.add_argument("--clients", type=int, default=4, help="threads for each protocol")
    arguments = parser.parse_args()
    raw = np.frombuffer((ROOT / "data/t10k-images-idx3-ubyte").read_bytes(), np.uint8, offset=16)
    images = raw.reshape(-1, 28, 28)
    model = load(Repository(ROOT / "models").folder(MODEL), "cpu", 1)
    digits = model.runtime.run(images).probabilities.argmax(axis=1)
    ports = free_ports(3)
    with tempfile.TemporaryDirectory() as home:
        server = start_server(ports, home)
        soak = Soak(images, digits, ports)
        runs = [soak.run_http] * arguments.clients + [soak.run_grpc] * arguments.clients
        threads = [threading.Thread(target=run) for run in runs]
        started = time.monotonic()
        try:
            for thread in threads:
                thread.start()
            growth = watch_memory(server, arguments.duration_s)
        finally:
            soak.stop.set()
            for thread in threads:
                thread.join()
            seconds = time.monotonic() - started
            server.send_signal(signal.SIGTERM)
            code = server.wait(60)
    return report(soak, seconds, growth, code)


def report(soak: Soak, seconds: float, growth: float, code: int) -> int:
    """Print the figures and return the exit code."""
    total = sum(soak.counts.values())
    errors = sum(count for kind, count in soak.counts.items() if kind.rpartition(" ")[2].startswith("5"))
    for kind, count in sorted(soak.counts.items()):
        print(f"{kind}: {count}")
    for text in soak.wrong[:10]:
        print(f"WRONG {text}")
    print(f"requests: {total} in {seconds:.0f} s ({total / seconds:.0f}/s)")
    print(f"wrong answers: {len(soak.wrong)}, 5xx: {errors}, memory growth: {growth:+.1%}, exit code: {code}")
    return int(bool(soak.wrong) or errors > 0 or growth >= MAX_GROWTH or code != 0)


if __name__ == "__main__":
    sys.exit(main())
