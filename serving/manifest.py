"""The manifest of a published model version: a typed schema of `models/NAME/VERSION/manifest.json`.

Must not know: how a model is trained, or how it is served.
"""

import base64
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator, model_validator

from serving.errors import ModelRejected

FILE_NAME = "manifest.json"
MODEL_FILE_NAME = "model.onnx"
LAYERS_FILE_NAME = "layers.onnx"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
TenFractions = Annotated[list[Fraction], Field(min_length=10, max_length=10)]

LABELS = [str(digit) for digit in range(10)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class TensorSpec(_Record):
    """A graph input or output; a string in `shape` is a symbolic dimension."""

    name: str
    dtype: Literal["uint8", "float32"]
    shape: list[int | str]


INPUTS = [TensorSpec(name="images", dtype="uint8", shape=["batch", 28, 28])]
OUTPUTS = [TensorSpec(name=name, dtype="float32", shape=["batch", 10]) for name in ("logits", "probabilities")]


class FileRecord(_Record):
    """A file that this manifest vouches for."""

    name: str
    sha256: Sha256
    size_bytes: int


class Accuracy(_Record):
    """Right answers on one split, with the 95 % Wilson interval of the fraction."""

    split: Literal["train", "validation", "test"]
    correct: int
    total: int
    accuracy: Fraction
    interval_95: tuple[Fraction, Fraction]


class Check(_Record):
    """One check that publication demanded: its figure, its bound, and that it held."""

    name: str
    figure: str
    bound: str
    passed: bool


class GoldenDigit(_Record):
    """A test digit with the logits that the published file gave for it."""

    label: Annotated[int, Field(ge=0, le=9)]
    pixels: str = Field(description="base64 of 784 bytes, row-major 28x28, 0 = paper, 255 = ink")
    logits: Annotated[list[float], Field(min_length=10, max_length=10)]

    @field_validator("pixels")
    @classmethod
    def _must_be_784_bytes(cls, pixels: str) -> str:
        if len(base64.b64decode(pixels, validate=True)) != 784:
            raise ValueError("expected base64 of 784 bytes")
        return pixels

    def image(self) -> npt.NDArray[np.uint8]:
        """Return the picture: uint8, shape (28, 28)."""
        return np.frombuffer(base64.b64decode(self.pixels), np.uint8).reshape(28, 28)


class TrainingRecord(_Record):
    """How the weights came about, enough to make them again."""

    architecture: str
    recipe: str
    hyperparameters: dict[str, float | int | str | bool | None]
    seed: int
    epochs: int
    parameters: int
    multiply_adds: int
    device: str = Field(description="cpu or cuda; several of a run that was gone on with on another")
    code_commit: str = Field(description="of the training code; until November 2026, that of the publication")
    dataset_sha256: dict[str, Sha256]
    packages: dict[str, str]
    processes: Annotated[int, Field(ge=1, description="each took batches of the recipe's size")] = 1
    threads: Annotated[int, Field(ge=1)] | Annotated[str, Field(pattern=r"^\d+(, \d+)+$")] = Field(
        default=1, description="of each operation on the CPU; several of a run that was gone on with by another number"
    )


class Acceptance(_Record):
    """When a prediction counts as known; the figures say what the threshold costs and buys on the test set."""

    min_confidence: Fraction
    chosen_on: Literal["default", "validation"]
    coverage: Fraction | None = Field(default=None, description="share of digits that are accepted")
    error_among_accepted: Fraction | None = None


class Calibration(_Record):
    """How far confidence and accuracy lie apart: expected calibration error over bins of as many digits each."""

    bins: Annotated[int, Field(ge=1)]
    error_validation: Fraction
    error_test: Fraction


class Seeds(_Record):
    """The same recipe begun at several seeds, this one among them: right answers of each on the test set."""

    seeds: Annotated[list[int], Field(min_length=1)]
    accuracies: Annotated[list[Fraction], Field(min_length=1)]
    mean: Fraction
    lowest: Fraction
    highest: Fraction
    best_on_validation: bool = Field(
        default=True, description="no other read more held-back digits right; so it was where it is not said"
    )


class Reference(_Record):
    """What the training pictures look like, for input drift.

    `digits[k]` is the fraction of digit k; `ink[i]` the fraction of images whose mean intensity (0-255) lies between
    `ink_edges[i]` and `ink_edges[i + 1]`, the outer bins being open.
    """

    digits: TenFractions
    ink_edges: list[FiniteFloat]
    ink: Annotated[list[Fraction], Field(min_length=1)]

    @model_validator(mode="after")
    def _must_fit(self) -> Self:
        if len(self.ink_edges) != len(self.ink) + 1 or self.ink_edges != sorted(self.ink_edges):
            raise ValueError(f"expected {len(self.ink) + 1} ascending ink_edges around {len(self.ink)} shares of ink")
        return self


class Manifest(_Record):
    """Everything that is known about one published version of a model."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    version: Annotated[int, Field(ge=1)]
    created: str = Field(description="UTC, ISO 8601")
    description: str
    file: FileRecord
    layers: FileRecord | None = Field(default=None, description="the same network, every layer an output")
    opset: int
    ir_version: int
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    labels: list[str]
    temperature: Annotated[FiniteFloat, Field(gt=0.0)]
    training: TrainingRecord
    accuracy: list[Accuracy]
    checks: list[Check]
    acceptance: Acceptance
    calibration: Calibration | None = Field(default=None, description="none where no validation images were held back")
    seeds: Seeds | None = None
    reference: Reference
    golden: Annotated[list[GoldenDigit], Field(min_length=20)]

    @field_validator("labels")
    @classmethod
    def _must_be_the_digits(cls, labels: list[str]) -> list[str]:
        if labels != LABELS:
            raise ValueError("expected the digits 0 to 9 in their order")
        return labels

    @field_validator("checks")
    @classmethod
    def _must_have_passed(cls, checks: list[Check]) -> list[Check]:
        if failed := [check.name for check in checks if not check.passed]:
            raise ValueError(f"expected checks that passed, not {', '.join(failed)}")
        return checks

    def write(self, folder: Path) -> None:
        """Write `manifest.json` into `folder`."""
        (folder / FILE_NAME).write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read and validate `folder/manifest.json`.

    Raises:
        ModelRejected: the file is missing, is not JSON or does not fit the schema.
    """
    path = folder / FILE_NAME
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelRejected("manifest", f"no readable {path.name} ({error.strerror})", "a manifest") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or path.name
        raise ModelRejected("manifest", f"{where}: {first['msg']}", "a manifest of schema version 1") from error
