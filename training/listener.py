"""Whoever hears how a training goes.

Must not know: how it is done.
"""

from typing import Protocol

from training.checkpoint import EpochRecord


class Listener(Protocol):
    """Whoever wants to hear how the training goes."""

    def on_batch(self, epoch: int, batch: int, batches: int) -> None:
        """Hear that batch `batch` of `batches` is done, both counted from 1."""

    def on_loss(self, epoch: int, batch: int, loss: float) -> None:
        """Hear the mean loss of the batches since the last report."""

    def on_epoch(self, record: EpochRecord) -> None:
        """Hear what an epoch came to; its checkpoint is written."""


class Silence:
    """A listener that does nothing."""

    def on_batch(self, epoch: int, batch: int, batches: int) -> None:
        """Do nothing."""

    def on_loss(self, epoch: int, batch: int, loss: float) -> None:
        """Do nothing."""

    def on_epoch(self, record: EpochRecord) -> None:
        """Do nothing."""
