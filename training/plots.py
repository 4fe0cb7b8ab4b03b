"""The pictures of a report, as PNG files in memory.

Must not know: where they are shown.
"""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from training.calibration import Bin, reliability
from training.checkpoint import EpochRecord
from training.figures import Scores
from training.selective import risk_coverage

COLOUR = "#1f5fa8"
ACCENT = "#c8452f"
COLOURS_KEPT = 64
MISREAD_SHOWN = 40
MISREAD_PER_ROW = 10
MISREAD_WIDTH, MISREAD_HEIGHT = 34, 40


def curves(history: Sequence[EpochRecord]) -> bytes:
    """Draw loss and accuracy over the epochs."""
    figure = Figure((7, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [record.epoch for record in history]
    left.plot(epochs, [record.loss for record in history], color=COLOUR)
    _label(left, "epoch", "training loss")
    right.plot(epochs, [100 * record.accuracy for record in history], color=COLOUR)
    split = history[-1].split if history else "validation"
    _label(right, "epoch", f"accuracy on the {split} set, %")
    return _png(figure)


def confusion(scores: Scores) -> bytes:
    """Draw what was taken for what; right answers are left white, so that the others can be seen."""
    counts = scores.evaluation.confusion
    wrong = counts * (1 - np.eye(10, dtype=np.int64))
    figure = Figure((4.2, 3.9), layout="constrained")
    axes = figure.subplots()
    axes.imshow(wrong, cmap="Blues", vmin=0, vmax=max(3, wrong.max()))
    for row, column in np.argwhere(counts):
        colour = "white" if 2 * wrong[row, column] > wrong.max() else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(10))
    axes.set_yticks(range(10))
    _label(axes, "read as", "digit")
    return _png(figure)


def reliability_diagram(scores: Scores) -> bytes:
    """Draw accuracy over confidence in bins of equal numbers; both axes as distance from certainty, logarithmic."""
    doubt, errors = reliability_points(reliability(scores.probabilities, scores.digits.labels))
    figure = Figure((3.8, 3.4), layout="constrained")
    axes = figure.subplots()
    limits = (min(*doubt, *errors) / 2, max(*doubt, *errors) * 2)
    axes.loglog(limits, limits, color="grey", linewidth=0.8)
    axes.loglog(doubt, errors, "o-", color=COLOUR, markersize=4)
    _label(axes, "1 - mean confidence", "share of errors (none: half of one)")
    return _png(figure)


def reliability_points(bins: Sequence[Bin]) -> tuple[list[float], list[float]]:
    """Return the distances of confidence and accuracy from certainty, each above 0, for it has no logarithm.

    Half an error stands for none, and half a rounding of float32 below 1 for no doubt.
    """
    doubt = [max(1 - part.confidence, 2**-25) for part in bins]
    errors = [max(1 - part.accuracy, 0.5 / part.count) for part in bins]
    return doubt, errors


def risk_coverage_curve(scores: Scores, threshold: float) -> bytes:
    """Draw the error among accepted answers over the share that is accepted, and where the threshold stands."""
    coverage, error = risk_coverage(scores.confidence, scores.right)
    figure = Figure((3.8, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(100 * coverage, 100 * error, color=COLOUR)
    axes.axvline(100 * float((scores.confidence >= threshold).mean()), color=ACCENT, linewidth=0.8)
    axes.set_xlim(90, 100.2)
    _label(axes, "accepted, %", "error among accepted, %")
    return _png(figure)


def misread_digits(scores: Scores) -> bytes | None:
    """Draw the misread digits, the surest error first, each with its label and answer; None if there are none."""
    wrong = scores.evaluation.misread
    chosen = wrong[np.argsort(-scores.confidence[wrong])][:MISREAD_SHOWN]
    if not len(chosen):
        return None
    rows = -(-len(chosen) // MISREAD_PER_ROW)
    figure = Figure((0.75 * MISREAD_PER_ROW, 0.95 * rows), layout="constrained")
    axes = figure.subplots()
    axes.axis("off")
    # One picture of them all: axes for each take a second.
    paper = np.full((rows * MISREAD_HEIGHT, MISREAD_PER_ROW * MISREAD_WIDTH), 255, np.uint8)
    for place, index in enumerate(chosen):
        top, left = (place // MISREAD_PER_ROW + 1) * MISREAD_HEIGHT - 28, place % MISREAD_PER_ROW * MISREAD_WIDTH
        paper[top : top + 28, left : left + 28] = 255 - scores.digits.images[index]
        answer, confidence = scores.probabilities[index].argmax(), scores.confidence[index]
        title = f"{scores.digits.labels[index]} as {answer}, {100 * confidence:.0f} %"
        axes.text(left + 14, top - 2, title, ha="center", va="bottom", fontsize=6)
    axes.imshow(paper, cmap="gray", vmin=0, vmax=255)
    return _png(figure)


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.tick_params(labelsize=7)


def _png(figure: Figure) -> bytes:
    """Return the picture with few colours, a third of the size of the full ones; it says nothing of its making."""
    raw, small = BytesIO(), BytesIO()
    figure.savefig(raw, format="png", dpi=110, metadata={"Software": None})
    with Image.open(raw) as image:
        image.convert("RGB").quantize(COLOURS_KEPT).save(small, "PNG", optimize=True)
    return small.getvalue()
