from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from serving.errors import ModelNotFound
from serving.preprocess import prepare
from serving.repository import Repository, load
from serving.settings import Settings

MODELS = Path(__file__).parents[3] / "models"

Classify = Callable[[list[Any]], list[int]]
Read = Callable[[list[bytes]], list[int]]


@pytest.fixture(scope="session")
def classify() -> Classify:
    """Return a function from 28x28 images to digits, by the committed default model."""
    try:
        folder = Repository(MODELS).folder(Settings().default_model)
    except ModelNotFound as missing:
        pytest.skip(str(missing))
    model = load(folder, "cpu", 1)

    def answers(images: list[Any]) -> list[int]:
        digits: list[int] = model.runtime.run(np.stack(images)).logits.argmax(1).tolist()
        return digits

    return answers


@pytest.fixture(scope="session")
def read_all(classify: Classify) -> Read:
    """Return a function from files to digits, by the committed default model."""
    return lambda files: classify([prepare(data).image for data in files])


@pytest.fixture(scope="session")
def seven(test_digits: Any) -> Any:
    """Return MNIST's first test digit, a 7: uint8 (28, 28)."""
    return test_digits[0][0]


@pytest.fixture
def large(seven: Any) -> Any:
    """Return a dark 7 on light paper with unlike edges: uint8 (280, 210)."""
    strokes = cv2.resize(seven, (160, 160), interpolation=cv2.INTER_CUBIC)
    page = np.full((280, 210), 235, np.uint8)
    page[40:200, 30:190] = np.minimum(235, 255 - strokes)
    return page
