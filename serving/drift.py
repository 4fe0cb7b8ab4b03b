"""Input drift: how far the latest images are from those of the training.

Must not know: models, metrics, transports.
"""

import numpy as np
import numpy.typing as npt

from serving.manifest import Reference

# Fewer images say nothing: with 100, chance alone gives ten equal classes an index of about 0.09.
MIN_IMAGES = 100

# Stands for a share of nothing, whose logarithm does not exist; below one image in the default window.
FLOOR = 1e-4


def population_stability_index(expected: npt.ArrayLike, counts: npt.NDArray[np.int64]) -> float:
    """Return sum((found - expected) * ln(found / expected)) over the bins; 0 = alike, above 0.25 = another population.

    Args:
        expected: share of each bin, shape (K,).
        counts: what was found in each bin, shape (K,), not all zero.
    Source: Siddiqi, Credit Risk Scorecards, 2006, for the index and its usual bounds 0.1 and 0.25.
    """
    wanted = np.maximum(np.asarray(expected, np.float64), FLOOR)
    found = np.maximum(counts / counts.sum(), FLOOR)
    return float(((found - wanted) * np.log(found / wanted)).sum())


class Drift:
    """Compares the latest images with the reference of a model.

    Args:
        reference: shares of digits and of ink in the training set.
        window: how many of the latest images count.
    """

    def __init__(self, reference: Reference, window: int):
        self._reference = reference
        # The outer bins are open, so the outer edges separate nothing.
        self._edges = np.asarray(reference.ink_edges[1:-1], np.float64)
        self._digits = np.zeros(window, np.int64)
        self._ink = np.zeros(window, np.int64)
        self._seen = 0

    def add(self, images: npt.NDArray[np.uint8], digits: npt.NDArray[np.int64]) -> None:
        """Note images, uint8 (N, 28, 28), and their predicted digits, (N,)."""
        window = len(self._digits)
        images, digits = images[-window:], digits[-window:]
        # Half the time of mean(axis=1), which adds floats.
        rows = images.reshape(len(images), -1)
        ink = rows.sum(axis=1, dtype=np.uint32) / rows.shape[1]
        places = np.arange(self._seen, self._seen + len(images)) % window
        self._digits[places] = digits
        self._ink[places] = np.searchsorted(self._edges, ink, side="right")
        self._seen += len(images)

    def indices(self) -> tuple[float, float] | None:
        """Return the stability index of the digits and of the ink, or None while too few images were seen."""
        size = min(self._seen, len(self._digits))
        if size < MIN_IMAGES:
            return None
        digits = np.bincount(self._digits[:size], minlength=10)
        ink = np.bincount(self._ink[:size], minlength=len(self._reference.ink))
        return (
            population_stability_index(self._reference.digits, digits),
            population_stability_index(self._reference.ink, ink),
        )
