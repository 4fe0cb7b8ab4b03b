"""Stand-ins for a model, its runtime and time."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from serving.limits import Limits
from serving.manifest import Manifest
from serving.runtime import Outputs
from serving.settings import Settings
from tests.serving.tiny_model import tiny_manifest

Images = npt.NDArray[np.uint8]

LIMITS = Limits.of(Settings())


def numbered(*numbers: int) -> Images:
    """Return one image per number, whose first two pixels hold it."""
    images = np.zeros((len(numbers), 28, 28), np.uint8)
    images[:, 0, 0] = np.array(numbers) // 256
    images[:, 0, 1] = np.array(numbers) % 256
    return images


def numbers_in(outputs: Outputs) -> list[int]:
    """Return the numbers of the images that the fake model saw, in the order of its rows."""
    return outputs.logits[:, 0].astype(int).tolist()


@dataclass
class FakeRun:
    """A model that gives back the number in each image, and remembers its batches."""

    batches: list[list[int]] = field(default_factory=list)
    error: Exception | None = None

    def __call__(self, images: Images) -> Outputs:
        numbers = images[:, 0, 0].astype(int) * 256 + images[:, 0, 1]
        self.batches.append(numbers.tolist())
        if self.error:
            raise self.error
        logits = np.zeros((len(images), 10), np.float32)
        logits[:, 0] = numbers
        probabilities = np.zeros((len(images), 10), np.float32)
        probabilities[np.arange(len(images)), numbers % 10] = 1.0
        return Outputs(logits, probabilities)


class FakeClock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeRuntime:
    """A runtime around a fake model."""

    run: FakeRun
    provider: str = "CPUExecutionProvider"
    reason: str = "it is fake"


@dataclass
class FakeModel:
    """A loaded model around a fake one."""

    runtime: FakeRuntime = field(default_factory=lambda: FakeRuntime(FakeRun()))
    manifest: Manifest = field(default_factory=lambda: tiny_manifest(b"model", "fake", 3))
    folder: Path = Path()

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def version(self) -> str:
        return str(self.manifest.version)
