"""What it costs to be sure: refuse the answers below a threshold, and see how many are left and how many of those err.

Must not know: networks.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Selection:
    """What a threshold does to one set of digits."""

    threshold: float
    coverage: float
    """Share of answers that are accepted, 0 to 1."""
    error: float
    """Share of wrong answers among the accepted, 0 to 1; 0 if none is accepted."""


def select(confidence: Floats, right: Flags, threshold: float) -> Selection:
    """Accept the answers whose confidence is at least the threshold.

    Args:
        confidence: (N,), 0 to 1.
        right: (N,), whether the answer is right.
        threshold: 0 to 1.
    """
    accepted = confidence >= threshold
    error = float(1 - right[accepted].mean()) if accepted.any() else 0.0
    return Selection(threshold, float(accepted.mean()), error)


def risk_coverage(confidence: Floats, right: Flags) -> tuple[Floats, Floats]:
    """Return coverage and error among accepted, (N,) each, as the threshold falls from answer to answer.

    Source: El-Yaniv, Wiener 2010, "On the Foundations of Noise-free Selective Classification".
    """
    order = np.argsort(-confidence, kind="stable")
    counts = np.arange(1, len(order) + 1)
    return counts / len(order), np.cumsum(~right[order]) / counts


def choose_threshold(confidence: Floats, right: Flags, *, max_error: float) -> float:
    """Return the lowest threshold that keeps the error among accepted within a bound.

    Args:
        confidence: (N,), 0 to 1, of digits that the network was not trained on.
        right: (N,), whether the answer is right.
        max_error: share of wrong answers among the accepted that is allowed, 0 to 1.

    Returns:
        The confidence of the least sure answer that is accepted, its ties with it; infinity if none can be.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    _, error = risk_coverage(confidence, right)
    last_of_ties = np.append(ranked[1:] != ranked[:-1], True)
    allowed = last_of_ties & (error <= max_error)
    if not allowed.any():
        return math.inf
    return float(ranked[np.flatnonzero(allowed)[-1]])
