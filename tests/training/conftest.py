"""What the training tests share: the real data set, and a small one that a network learns in a moment."""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import DATA, Digits
from training import mnist
from training.mnist import Mnist


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Compute in one thread, here and in processes that are started: beside other tests a second one mostly spins."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="package", autouse=True)
def untraced_export() -> Iterator[None]:
    """Let coverage look away while torch exports: following its calls, few of them ours, takes a quarter."""
    export = torch.onnx.export

    def untraced(*args: Any, **options: Any) -> Any:
        tracer = sys.gettrace()
        sys.settrace(None)
        try:
            return export(*args, **options)
        finally:
            sys.settrace(tracer)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.onnx, "export", untraced)
        yield


@pytest.fixture(scope="session")
def real_mnist(test_digits: Digits) -> Mnist:
    """Return MNIST; skipped with `test_digits` where the data are not there."""
    return mnist.load(DATA)


@pytest.fixture(scope="session")
def small_mnist() -> Mnist:
    """Return 400 images to train on and 100 to test on: a bar per digit, at a height of its own, in noise."""
    generator = np.random.default_rng(0)
    labels = np.arange(500) % 10
    images = generator.integers(0, 60, (500, 28, 28))
    for image, label in zip(images, labels, strict=True):
        image[4 + 2 * label : 6 + 2 * label, 4:24] += 180
    pictures, digits = torch.from_numpy(images.astype(np.uint8)), torch.from_numpy(labels.astype(np.int64))
    return Mnist(pictures[:400], digits[:400], pictures[400:], digits[400:])


@pytest.fixture
def small_data(monkeypatch: pytest.MonkeyPatch, small_mnist: Mnist) -> None:
    """Let every command find the small data set."""
    monkeypatch.setattr(mnist, "load", lambda _: small_mnist)
