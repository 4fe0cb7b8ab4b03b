"""How often a network is right, how sure that figure is, and what it takes for what.

Must not know: what kind of network it is; anything that turns images into ten scores will do.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from training.errors import NotNumbers

Predict = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""Images uint8 (N, 28, 28), 0 = paper, to scores (N, 10): logits or probabilities, the highest is the answer."""

# 97.5 % quantile of the normal distribution: two-sided 95 %.
_Z_95 = 1.959963984540054


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Right answers on one set of images."""

    correct: int
    total: int
    accuracy: float
    """correct / total, 0 to 1."""
    interval_95: tuple[float, float]
    """95 % Wilson interval of the accuracy."""
    confusion: npt.NDArray[np.int64]
    """(10, 10): row = true digit, column = answer."""
    answers: npt.NDArray[np.int64]
    """(N,): the digit read in each image."""
    misread: npt.NDArray[np.int64]
    """Indices of the images that were read wrongly, ascending."""


def wilson_interval(correct: int, total: int, z: float = _Z_95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion, 95 % unless told otherwise.

    Args:
        correct: successes, 0 to `total`.
        total: trials, at least 1.
        z: quantile of the normal distribution.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    share = correct / total
    scale = 1.0 + z * z / total
    centre = (share + z * z / (2 * total)) / scale
    reach = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / scale
    return max(0.0, centre - reach), min(1.0, centre + reach)


def evaluate(
    predict: Predict, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer], batch_size: int = 1000
) -> Evaluation:
    """Read every image and count.

    Args:
        predict: see `Predict`.
        images: uint8 (N, 28, 28), N >= 1.
        labels: integers (N,), 0 to 9.
        batch_size: images per call of `predict`.

    Raises:
        ValueError: no images, or not as many labels.
        NotNumbers: a score is not a number.
    """
    if len(images) == 0 or len(images) != len(labels):
        raise ValueError(f"expected as many labels as images and at least one, got {len(images)} and {len(labels)}")
    scores = np.concatenate([predict(images[i : i + batch_size]) for i in range(0, len(images), batch_size)])
    if np.isnan(scores).any():
        raise NotNumbers(
            f"{np.isnan(scores).any(axis=1).sum()} of {len(scores)} images have scores that are not numbers"
        )
    return _count(scores.argmax(axis=1).astype(np.int64), labels.astype(np.int64))


def predictor(model: nn.Module, device: str = "cpu") -> Predict:
    """Return a function from images to logits that runs `model`, in evaluation mode, on `device` where it lies."""

    def predict(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        was_training = model.training
        model.eval()
        try:
            with torch.inference_mode():
                logits: npt.NDArray[np.float32] = model(torch.tensor(images, device=device)).float().cpu().numpy()
        finally:
            model.train(was_training)
        return logits

    return predict


def _count(answers: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> Evaluation:
    confusion = np.zeros((10, 10), np.int64)
    np.add.at(confusion, (labels, answers), 1)
    correct, total = int(np.trace(confusion)), len(labels)
    return Evaluation(
        correct=correct,
        total=total,
        accuracy=correct / total,
        interval_95=wilson_interval(correct, total),
        confusion=confusion,
        answers=answers,
        misread=np.flatnonzero(answers != labels).astype(np.int64),
    )
