"""The committed default model, as users meet it."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import httpx
import numpy as np
import pytest

from serving.manifest import read_manifest
from serving.repository import Repository
from serving.settings import Settings
from tests.conftest import Digits
from tests.e2e.conftest import Start
from tests.e2e.server import ROOT


@pytest.mark.slow
def test_all_test_digits_as_pictures_give_the_manifests_accuracy_to_the_digit(start: Start, test_digits: Digits):
    default = Settings().default_model
    manifest = read_manifest(Repository(ROOT / "models").folder(default))
    (expected,) = [each for each in manifest.accuracy if each.split == "test"]
    server = start(MNIST_MODELS=str(ROOT / "models"), MNIST_DEFAULT_MODEL="").wait_ready()
    images, labels = test_digits

    def read(first: int) -> list[int]:
        batch = enumerate(images[first : first + 100], first)
        files = [("f", (f"{place}.png", cv2.imencode(".png", image)[1].tobytes())) for place, image in batch]
        answer = httpx.post(f"{server.url}/predict", files=files, timeout=60).json()
        assert answer["model"]["name"] == default
        return [prediction["digit"] for prediction in answer["predictions"]]

    with ThreadPoolExecutor(2) as pool:
        found = np.array([digit for digits in pool.map(read, range(0, 10_000, 100)) for digit in digits])
    assert int((found == labels).sum()) == expected.correct
