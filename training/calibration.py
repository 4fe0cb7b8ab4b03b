"""Whether a confidence of 0.9 means being right nine times in ten, and the temperature that makes it so.

Must not know: networks.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

BINS = 15
# Beyond these no network of use lies: label smoothing leads to about 0.5, overfitting to about 3.
_TEMPERATURES = (0.05, 20.0)

Floats = npt.NDArray[np.floating]
Labels = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Bin:
    """Predictions of similar confidence."""

    count: int
    confidence: float
    """Mean probability of the predicted digits, 0 to 1."""
    accuracy: float
    """Share of right answers, 0 to 1."""


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """Return the temperature at which the softmax of logits / temperature fits the labels best.

    Args:
        logits: (N, 10), of images that the network was not trained on.
        labels: (N,), 0 to 9.

    Returns:
        The temperature of least negative log-likelihood, > 0, to 4 digits.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks".
    """

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(logits / np.exp(log_temperature), labels)

    found = minimize_scalar(loss, bounds=tuple(np.log(_TEMPERATURES)), method="bounded", options={"xatol": 1e-5})
    return float(f"{np.exp(found.x):.4g}")


def negative_log_likelihood(logits: Floats, labels: Labels) -> float:
    """Return the mean of -log(softmax(logits)) at the labels, in nats."""
    return float(-log_softmax(np.asarray(logits, np.float64), axis=1)[np.arange(len(labels)), labels].mean())


def reliability(probabilities: Floats, labels: Labels, bins: int = BINS) -> tuple[Bin, ...]:
    """Sort predictions by confidence and cut them into bins of equal numbers.

    Args:
        probabilities: (N, 10), rows sum to 1; N >= bins.
        labels: (N,), 0 to 9.
        bins: how many; sizes differ by one at most.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    groups = np.array_split(np.argsort(confidence, kind="stable"), bins)
    return tuple(
        Bin(len(group), float(confidence[group].mean(dtype=np.float64)), float(right[group].mean())) for group in groups
    )


def expected_calibration_error(bins: tuple[Bin, ...]) -> float:
    """Return the mean distance of confidence and accuracy over bins, weighed by their sizes, 0 to 1.

    Source: Naeini et al. 2015; with bins of equal mass as in Nguyen, O'Connor 2015.
    """
    total = sum(part.count for part in bins)
    return sum(part.count * abs(part.confidence - part.accuracy) for part in bins) / total
