"""How a training run shows itself on a terminal and in a pipe.

Must not know: the training loop.
"""

import sys
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from training.checkpoint import EpochRecord


class Console:
    """A listener that prints the tutorial's lines on standard output, under a progress bar on standard error.

    The bar is there only where standard error is a terminal; the lines are whole and in order wherever they go.
    """

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def on_batch(self, epoch: int, batch: int, batches: int) -> None:
        """Move the bar, which is new for each epoch."""
        if self._bar is None:
            self._bar = tqdm(total=batches, desc=f"epoch {epoch}", unit="batch", leave=False, disable=None)
        self._bar.update(batch - self._bar.n)

    def on_loss(self, epoch: int, batch: int, loss: float) -> None:
        """Print the tutorial's line."""
        self._print(f"[{epoch}, {batch}] loss: {loss:.3f}")

    def on_epoch(self, record: EpochRecord) -> None:
        """End the bar and print what the epoch came to."""
        self.__exit__(None, None, None)
        self._print(
            f"accuracy on {record.split} set after epoch {record.epoch}: {100 * record.accuracy:.2f} %"
            f" ({record.seconds:.1f} s)"
        )

    def _print(self, line: str) -> None:
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()
