"""All published models side by side.

Must not know: how they were trained.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from serving.manifest import Accuracy
from serving.repository import LoadedModel
from serving.runtime import OnnxModel
from serving.table import format_table
from training.model_card import percent

# What the tutorial that these networks started from reports for its convolutional network after ten epochs.
TUTORIAL = ("the tutorial's network", "", "98 %", "", "8,490", "", "", "", "")
HEADER = (
    *("MODEL", "RECIPE", "TEST SET", "95 % INTERVAL", "PARAMETERS", "MULTIPLY-ADDS", "FILE"),
    *("IMAGES/S, BATCH 1", "IMAGES/S, BATCH 256"),
)
BATCH_SIZES = (1, 256)
# Long enough to average over a scheduler's slices, short enough to compare ten models in a few seconds.
MEASURE_S = 0.3


@dataclass(frozen=True)
class Speed:
    """Images per second at each of BATCH_SIZES."""

    single: float
    batched: float


def measure_speed(runtime: OnnxModel, clock: Callable[[], float] = time.perf_counter) -> Speed:
    """Run a model for a moment at each of BATCH_SIZES.

    Args:
        runtime: the model.
        clock: gives seconds.
    """
    rates = []
    for size in BATCH_SIZES:
        images = np.zeros((size, 28, 28), np.uint8)
        runtime.run(images)
        done, started = 0, clock()
        while (passed := clock() - started) < MEASURE_S:
            runtime.run(images)
            done += size
        rates.append(done / passed)
    return Speed(*rates)


def comparison(rows: Iterable[tuple[str, ...]]) -> str:
    """Return a table of rows that `measure` made, the tutorial's own network below them."""
    return format_table(HEADER, [*rows, TUTORIAL])


def measure(model: LoadedModel) -> tuple[str, ...]:
    """Return a model's row, one cell for each column of HEADER.

    Raises:
        ServingError: the model does not run.
    """
    manifest, speed = model.manifest, measure_speed(model.runtime)
    accuracy, interval = _test_accuracy(manifest.accuracy)
    return (
        f"{manifest.name} {manifest.version}",
        manifest.training.recipe,
        accuracy,
        interval,
        f"{manifest.training.parameters:,}",
        f"{manifest.training.multiply_adds:,}",
        f"{manifest.file.size_bytes / 1000:,.0f} kB",
        f"{speed.single:,.0f}",
        f"{speed.batched:,.0f}",
    )


def _test_accuracy(accuracies: Iterable[Accuracy]) -> tuple[str, str]:
    for record in accuracies:
        if record.split == "test":
            low, high = record.interval_95
            return percent(record.accuracy), f"{percent(low)} to {percent(high)}"
    return "not measured", ""
