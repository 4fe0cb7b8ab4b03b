"""The service with MNIST_DEVICE=cuda: the published models on a GPU, over HTTP and from the command line."""

import csv
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from serving.repository import load
from serving.runtime import CUDA
from tests.conftest import Digits
from tests.e2e.conftest import Start
from tests.e2e.server import ROOT, Server
from tests.serving.test_published_models import PUBLISHED, by_name
from tests.serving.test_runtime import without_gpu

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(without_gpu(), reason="no GPU, or onnxruntime without CUDA"),
]

# Between devices: the sums of a convolution are taken in another order.
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def server(start: Start) -> Server:
    return start(MNIST_MODELS=str(ROOT / "models"), MNIST_DEFAULT_MODEL="", MNIST_DEVICE="cuda").wait_ready()


@pytest.mark.parametrize("folder", PUBLISHED, ids=by_name)
def test_every_published_model_gives_on_a_gpu_what_it_gives_on_a_cpu(folder: Path, test_digits: Digits):
    on_gpu, on_cpu = load(folder, "cuda").runtime, load(folder, "cpu").runtime
    assert on_gpu.provider == CUDA
    for count in (1, 3, 64, 300):
        images = test_digits[0][:count]
        expected, found = on_cpu.run(images), on_gpu.run(images)
        np.testing.assert_allclose(found.logits, expected.logits, atol=TOLERANCE)
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=TOLERANCE)


def test_the_service_says_that_it_runs_on_the_gpu(server: Server):
    metadata = httpx.get(f"{server.v2_url}/v2/models/mnist-resnet").json()
    assert metadata["properties"]["execution_provider"] == CUDA
    assert server.sample(f'mnist_execution_provider{{model="mnist-resnet",provider="{CUDA}"}}') == 1
    assert "the session runs on CUDA" in server.log


def test_many_clients_at_once_get_the_right_digits_from_the_gpu(server: Server, test_digits: Digits):
    images, labels = test_digits

    def read(first: int) -> list[bool]:
        size = 1 + first % 40
        body = {"inputs": [tensor(images[first : first + size])]}
        answer = httpx.post(f"{server.v2_url}/v2/models/mnist-resnet/infer", json=body, timeout=60).json()
        (found,) = [output for output in answer["outputs"] if output["name"] == "probabilities"]
        digits = np.reshape(found["data"], found["shape"]).argmax(axis=1)
        return (digits == labels[first : first + size]).tolist()

    with ThreadPoolExecutor(16) as pool:
        right = [each for part in pool.map(read, range(0, 4000, 17)) for each in part]
    assert np.mean(right) > 0.99


def tensor(images: np.ndarray) -> dict[str, object]:
    return {"name": "images", "datatype": "UINT8", "shape": list(images.shape), "data": images.ravel().tolist()}


def test_files_are_scored_on_the_gpu(tmp_path: Path, test_digits: Digits):
    images, labels = test_digits
    source, output = tmp_path / "digits.npy", tmp_path / "digits.csv"
    np.save(source, images)
    command = [sys.executable, "-m", "serving", "score", str(source), "--output", str(output), "--device", "cuda"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    with output.open(encoding="utf-8", newline="") as file:
        digits = [int(row["digit"]) for row in csv.DictReader(file)]
    assert np.mean(np.array(digits) == labels) > 0.99
