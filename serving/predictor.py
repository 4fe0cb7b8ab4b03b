"""Predictor: one model version, from prepared pictures or tensors to results, metered.

Must not know: transports, files.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from serving.acceptance import judge
from serving.batching import MicroBatcher
from serving.drift import Drift
from serving.errors import ServingError
from serving.manifest import Manifest
from serving.metrics import ModelMetrics
from serving.reasons import BLANK
from serving.repository import LoadedModel
from serving.runtime import Outputs

if TYPE_CHECKING:
    from serving.preprocess import Prepared

# Predictions that are made in one turn of the event loop; 2,048 take 4 ms.
PIECE = 256


@dataclass(slots=True)
class Prediction:
    """What one picture shows.

    Attributes:
        digit: 0 to 9, or None for a blank picture.
        confidence: probability of `digit`, 0 to 1, calibrated; None for a blank picture.
        probabilities: ten, of the digits 0 to 9, sum 1; None for a blank picture.
        accepted: the confidence reaches the model's threshold and nothing is wrong with the picture.
        reasons: everything that speaks against it.
    """

    digit: int | None
    confidence: float | None
    probabilities: list[float] | None
    accepted: bool
    reasons: list[str]


class Predictor:
    """A loaded model behind its batcher.

    Args:
        model: a version that passed its checks.
        batcher: runs that model.
        metrics: of that model.
        drift: compares what it sees with the model's training set.
    """

    def __init__(self, model: LoadedModel, batcher: MicroBatcher, metrics: ModelMetrics, drift: Drift):
        self.model, self.batcher = model, batcher
        self._metrics, self._drift = metrics, drift

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def version(self) -> str:
        """The version as text."""
        return self.model.version

    @property
    def manifest(self) -> Manifest:
        """The manifest of the version."""
        return self.model.manifest

    @property
    def provider(self) -> str:
        """The execution provider that runs the model."""
        return self.model.runtime.provider

    async def infer(self, images: npt.NDArray[np.uint8], deadline: float | None = None) -> Outputs:
        """Run the model on tensors.

        Args:
            images: uint8, shape (N, 28, 28), N >= 0.
            deadline: monotonic seconds.

        Raises:
            QueueFull, DeadlineExceeded, ServingError: see `MicroBatcher.submit`.
        """
        started = time.perf_counter()
        try:
            outputs = await self.batcher.submit(images, deadline)
        except ServingError:
            self._metrics.answered(time.perf_counter() - started, succeeded=False)
            raise
        self._note(images, outputs, time.perf_counter() - started)
        return outputs

    def infer_now(self, images: npt.NDArray[np.uint8]) -> Outputs | None:
        """Run the model at once on tensors, N >= 1; None where they must wait: see `MicroBatcher.run_now`."""
        started = time.perf_counter()
        outputs = self.batcher.run_now(images)
        if outputs is not None:
            self._note(images, outputs, time.perf_counter() - started)
        return outputs

    def _note(self, images: npt.NDArray[np.uint8], outputs: Outputs, seconds: float) -> None:
        self._metrics.answered(seconds, succeeded=True)
        if len(images):
            self._metrics.predicted(self._drift, images, outputs.probabilities)

    async def predict(self, prepared: Sequence["Prepared"], deadline: float | None = None) -> list[Prediction]:
        """Read the digits of prepared pictures, in their order.

        A blank picture is not run: it has no digit.

        Raises:
            QueueFull, DeadlineExceeded, ServingError: see `MicroBatcher.submit`.
        """
        rows = iter((await self.infer(_stack(prepared), deadline)).probabilities)
        predictions = self._conclude(prepared[:PIECE], rows)
        for start in range(PIECE, len(prepared), PIECE):
            await asyncio.sleep(0)
            predictions += self._conclude(prepared[start : start + PIECE], rows)
        return predictions

    def predict_now(self, prepared: Sequence["Prepared"]) -> list[Prediction] | None:
        """Read the digits of prepared pictures at once; None where they must wait, or where there is no ink to run."""
        images = _stack(prepared)
        outputs = self.infer_now(images) if len(images) else None
        return None if outputs is None else self._conclude(prepared, iter(outputs.probabilities))

    def _conclude(self, prepared: Sequence["Prepared"], rows: Iterator[npt.NDArray[np.float32]]) -> list[Prediction]:
        predictions = [_blank() if picture.blank else self._judge(next(rows), picture) for picture in prepared]
        for reason, count in Counter(reason for each in predictions for reason in each.reasons).items():
            self._metrics.refuse(reason, count)
        return predictions

    def _judge(self, probabilities: npt.NDArray[np.float32], picture: "Prepared") -> Prediction:
        values: list[float] = probabilities.tolist()
        confidence = max(values)
        accepted, reasons = judge(confidence, picture.reasons, self.manifest.acceptance)
        return Prediction(values.index(confidence), confidence, values, accepted, reasons)

    def update_drift(self) -> None:
        """Publish the drift indices of the latest images whose tallies are written."""
        indices = self._drift.indices()
        if indices is not None:
            self._metrics.drifted(indices)

    def forget_drift(self) -> None:
        """Publish that there is no drift any more: nothing is sent to what is not served."""
        self._metrics.drifted((0.0, 0.0))


def _stack(prepared: Sequence["Prepared"]) -> npt.NDArray[np.uint8]:
    """Return the images that have ink."""
    inked = [picture.image for picture in prepared if not picture.blank]
    if len(inked) == 1:
        return inked[0][np.newaxis]  # np.stack takes 2 us more
    return np.stack(inked) if inked else np.empty((0, 28, 28), np.uint8)


def _blank() -> Prediction:
    return Prediction(None, None, None, accepted=False, reasons=[BLANK])
