"""What a published model says about itself: the manifest of a checkpoint and of the file that was made from it.

Must not know: where models are published.
"""

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from serving.installation import installed_distributions
from serving.manifest import (
    INPUTS,
    LABELS,
    OUTPUTS,
    Acceptance,
    Accuracy,
    Check,
    FileRecord,
    GoldenDigit,
    Manifest,
    Reference,
    TrainingRecord,
)
from serving.runtime import OnnxModel
from training import mnist, shapes
from training.checkpoint import Checkpoint
from training.export import IR_VERSION, OPSET
from training.verify import Digits, measure_accuracy

# Whose versions decide what the file is; what decides the weights stands in the checkpoint.
PACKAGES = ("torch", "numpy", "onnx", "onnxscript")

GOLDEN_PER_DIGIT = 2
INK_BINS = 10

# Below an even chance the answer is no better known than that it is wrong.
DEFAULT_ACCEPTANCE = Acceptance(min_confidence=0.5, chosen_on="default")


class Files(NamedTuple):
    """The files of a version."""

    model: Path
    layers: Path


def make_manifest(
    checkpoint: Checkpoint,
    version: int,
    files: Files,
    checks: Sequence[Check],
    data: mnist.Mnist,
    *,
    temperature: float,
    acceptance: Acceptance,
) -> Manifest:
    """Return the manifest of a version.

    Args:
        checkpoint: what was trained.
        version: its number, >= 1.
        files: what passed `checks`.
        checks: what `training.verify` found.
        data: MNIST; the test set gives accuracy and golden digits, the training set the reference.
        temperature: what the file was exported with.
        acceptance: when a prediction counts as known.
    """
    runtime = OnnxModel(files.model, "cpu")
    digits = Digits(data.test_images.numpy(), data.test_labels.numpy())
    return Manifest(
        name=checkpoint.architecture,
        version=version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        description=f"{checkpoint.architecture}, recipe {checkpoint.recipe.name}, {checkpoint.epoch} epochs on MNIST",
        file=_file_record(files.model),
        layers=_file_record(files.layers),
        opset=OPSET,
        ir_version=IR_VERSION,
        inputs=INPUTS,
        outputs=OUTPUTS,
        labels=LABELS,
        temperature=temperature,
        training=_training_record(checkpoint),
        accuracy=[_accuracy(runtime, digits)],
        checks=list(checks),
        acceptance=acceptance,
        reference=make_reference(data.train_images.numpy(), data.train_labels.numpy()),
        golden=golden_digits(runtime, digits),
    )


def _file_record(path: Path) -> FileRecord:
    content = path.read_bytes()
    return FileRecord(name=path.name, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


def _training_record(checkpoint: Checkpoint) -> TrainingRecord:
    model = checkpoint.model()
    return TrainingRecord(
        architecture=checkpoint.architecture,
        recipe=checkpoint.recipe.name,
        hyperparameters=checkpoint.recipe.hyperparameters(),
        seed=checkpoint.seed,
        epochs=checkpoint.epoch,
        parameters=shapes.parameters(model),
        multiply_adds=shapes.multiply_adds(model),
        device=checkpoint.device,
        code_commit=", ".join(checkpoint.code_commits) or "unknown",
        dataset_sha256=mnist.SHA256,
        packages=packages() | checkpoint.packages,
        processes=checkpoint.processes,
        threads=checkpoint.threads,
    )


def packages() -> dict[str, str]:
    """Return name and version of what decides the file, whichever ONNX Runtime is installed."""
    return {name: installed_version(name) for name in (*PACKAGES, *installed_distributions())}


def _accuracy(runtime: OnnxModel, digits: Digits) -> Accuracy:
    evaluation = measure_accuracy(runtime, digits)
    return Accuracy(
        split="test",
        correct=evaluation.correct,
        total=evaluation.total,
        accuracy=evaluation.accuracy,
        interval_95=evaluation.interval_95,
    )


def golden_digits(runtime: OnnxModel, digits: Digits) -> list[GoldenDigit]:
    """Return the first two of each digit, in the order of the digits, with the logits that the file gives now."""
    chosen = np.concatenate([np.flatnonzero(digits.labels == digit)[:GOLDEN_PER_DIGIT] for digit in range(10)])
    logits = runtime.run(digits.images[chosen]).logits
    return [
        GoldenDigit(
            label=int(digits.labels[index]),
            pixels=base64.b64encode(digits.images[index].tobytes()).decode("ascii"),
            logits=row.tolist(),
        )
        for index, row in zip(chosen, logits, strict=True)
    ]


def make_reference(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer]) -> Reference:
    """Return how digits and ink are distributed; the inner edges of ink are its deciles, to three decimals.

    Args:
        images: uint8 (N, 28, 28).
        labels: integers (N,), 0 to 9.
    """
    ink = images.reshape(len(images), -1).mean(axis=1)
    inner = np.quantile(ink, np.linspace(0, 1, INK_BINS + 1)[1:-1]).round(3)
    counts, _ = np.histogram(ink, [-np.inf, *inner, np.inf])
    return Reference(
        digits=(np.bincount(labels, minlength=10) / len(labels)).tolist(),
        ink_edges=[0.0, *inner.tolist(), 255.0],
        ink=(counts / len(ink)).tolist(),
    )
