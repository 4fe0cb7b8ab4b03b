"""The figures that a manifest gives beside the plain accuracy: calibration, selection, validation, other seeds.

Must not know: where models are published.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serving.manifest import Accuracy, Calibration, Manifest, Seeds
from serving.runtime import OnnxModel
from training.calibration import BINS, expected_calibration_error, reliability
from training.checkpoint import Checkpoint
from training.choices import validation_digits
from training.evaluate import Evaluation, evaluate, predictor
from training.mnist import Mnist
from training.selective import select
from training.verify import Digits

_BATCH_SIZE = 1000


@dataclass(frozen=True, eq=False)
class Scores:
    """What a published file makes of one set of digits."""

    probabilities: npt.NDArray[np.float32]
    """(N, 10)"""
    digits: Digits

    @property
    def confidence(self) -> npt.NDArray[np.float32]:
        """Probability of each answer: (N,)."""
        return np.asarray(self.probabilities.max(axis=1))

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each answer is right: (N,)."""
        return np.asarray(self.probabilities.argmax(axis=1) == self.digits.labels)

    @property
    def evaluation(self) -> Evaluation:
        """The answers, counted."""
        return evaluate(lambda _: self.probabilities, self.digits.images, self.digits.labels, len(self.digits.images))

    @property
    def calibration_error(self) -> float:
        """Expected calibration error over BINS bins of equal mass, 0 to 1."""
        return expected_calibration_error(reliability(self.probabilities, self.digits.labels))


def score(runtime: OnnxModel, digits: Digits) -> Scores:
    """Run a file on digits."""
    starts = range(0, len(digits.images), _BATCH_SIZE)
    pieces = [runtime.run(digits.images[start : start + _BATCH_SIZE]).probabilities for start in starts]
    return Scores(np.concatenate(pieces), digits)


def digits_of_the_test(data: Mnist) -> Digits:
    """Return the test set."""
    return Digits(data.test_images.numpy(), data.test_labels.numpy())


def complete(
    manifest: Manifest,
    checkpoint: Checkpoint,
    runtime: OnnxModel,
    test: Scores,
    data: Mnist,
    siblings: Sequence[Checkpoint],
) -> Manifest:
    """Return the manifest with the figures added that the file gives.

    Args:
        manifest: of the file that `runtime` runs.
        checkpoint: what the file was made from.
        runtime: the file.
        test: what it makes of the test set.
        data: MNIST.
        siblings: finished runs of the same recipe at other seeds.
    """
    held_out = validation_digits(checkpoint, data)
    selection = select(test.confidence, test.right, manifest.acceptance.min_confidence)
    changes: dict[str, object] = {
        "acceptance": manifest.acceptance.model_copy(
            update={"coverage": selection.coverage, "error_among_accepted": selection.error}
        ),
        "seeds": _seeds(checkpoint, test.evaluation.accuracy, siblings, data),
    }
    if held_out is not None:
        validation = score(runtime, held_out)
        changes["accuracy"] = [_accuracy(validation.evaluation), *manifest.accuracy]
        changes["calibration"] = Calibration(
            bins=BINS, error_validation=validation.calibration_error, error_test=test.calibration_error
        )
    return manifest.model_copy(update=changes)


def _accuracy(evaluation: Evaluation) -> Accuracy:
    return Accuracy(
        split="validation",
        correct=evaluation.correct,
        total=evaluation.total,
        accuracy=evaluation.accuracy,
        interval_95=evaluation.interval_95,
    )


def _seeds(checkpoint: Checkpoint, accuracy: float, siblings: Sequence[Checkpoint], data: Mnist) -> Seeds:
    digits = digits_of_the_test(data)
    by_seed = {checkpoint.seed: accuracy} | {
        other.seed: evaluate(predictor(other.model()), digits.images, digits.labels).accuracy for other in siblings
    }
    seeds = sorted(by_seed)
    accuracies = [by_seed[seed] for seed in seeds]
    return Seeds(
        seeds=seeds,
        accuracies=accuracies,
        mean=sum(accuracies) / len(accuracies),
        lowest=min(accuracies),
        highest=max(accuracies),
        best_on_validation=_is_best(checkpoint, siblings),
    )


def _is_best(checkpoint: Checkpoint, siblings: Sequence[Checkpoint]) -> bool:
    if not checkpoint.recipe.validation_size:
        return False
    return all(other.history[-1].accuracy <= checkpoint.history[-1].accuracy for other in siblings)
