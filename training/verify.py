"""The checks that an exported network must pass before it is published, each with its figure and its bound.

Must not know: where models are published.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from torch import nn

from serving import onnx_checks
from serving.errors import ModelRejected, ServingError
from serving.manifest import INPUTS, OUTPUTS, Check, TensorSpec
from serving.runtime import OnnxModel, Outputs
from serving.table import format_table
from training.errors import NotNumbers
from training.evaluate import Evaluation, Predict, evaluate, predictor

BATCH_SIZES = (1, 2, 7, 64, 257)

# Logits lie within +-40 or so, where one rounding of float32 is 2e-6: sums in another order stay far below this,
# while a wrong weight or a second normalisation moves logits by whole units.
PARITY = 1e-4
COMPANIONS = 1e-5
PROBABILITIES = 1e-5

# What onnxruntime 1.28, the oldest that this project allows, reads; see `training.export`.
LARGEST_OPSET, LARGEST_IR_VERSION = 26, 13

_RUN_SIZE = 1000

Images = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]


class VerificationFailed(ServingError):
    """An exported network failed checks: names each with its figure and its bound."""


@dataclass(frozen=True)
class Digits:
    """What a network is measured on: images uint8 (N, 28, 28), labels integers (N,)."""

    images: Images
    labels: npt.NDArray[np.integer]


class Subject:
    """An exported file beside the network that it was made from, each run once.

    Args:
        model: the file's bytes.
        reference: the network.
        images: uint8 (N, 28, 28); N >= 257, so that the largest of BATCH_SIZES can be taken from them.
    """

    def __init__(self, model: bytes, reference: nn.Module, images: Images):
        self.model, self.images = model, images
        self.reference: Predict = predictor(reference)

    @cached_property
    def graph(self) -> onnx.ModelProto:
        """The file as a graph."""
        return onnx_checks.parse(self.model)

    @cached_property
    def runtime(self) -> OnnxModel:
        """The file in the runtime that will serve it, on the CPU."""
        return OnnxModel(self.model, "cpu")

    @cached_property
    def outputs(self) -> Outputs:
        """What the runtime gives for all images: float32 (N, 10) each."""
        pieces = [self.runtime.run(piece) for piece in self._pieces()]
        return Outputs(*(np.concatenate(output) for output in zip(*pieces, strict=True)))

    @cached_property
    def expected(self) -> Logits:
        """What the network gives for all images: float32 (N, 10)."""
        return np.concatenate([self.reference(piece) for piece in self._pieces()])

    def _pieces(self) -> Iterable[Images]:
        return (self.images[start : start + _RUN_SIZE] for start in range(0, len(self.images), _RUN_SIZE))


def verify(
    file: Path, reference: nn.Module, digits: Digits, *, temperature: float = 1.0, min_accuracy: float
) -> list[Check]:
    """Run every check, whatever the others find.

    Args:
        file: what `training.export` wrote.
        reference: the network that it was made from.
        digits: the test set.
        temperature: the temperature that it was exported with.
        min_accuracy: the recipe's floor, 0 to 1.
    """
    subject = Subject(file.read_bytes(), reference, digits.images)
    return [
        *check_graph(subject),
        check_batch_sizes(subject),
        _check("parity", f"logits within {PARITY:g}", lambda: _parity(subject)),
        _check("labels", "every label equal", lambda: _labels(subject)),
        _check("companions", f"logits within {COMPANIONS:g} in another batch", lambda: _companions(subject)),
        _check("repetition", "the same bits twice", lambda: _repetition(subject)),
        check_probabilities(subject, temperature),
        *_check_accuracy(subject, digits, min_accuracy),
    ]


def check_graph(subject: Subject) -> list[Check]:
    """Check what can be seen without running the file."""
    return [
        _check("single file", "no data outside the file", lambda: _none(onnx_checks.external_tensors(subject.graph))),
        _check("operators", "default domain only", lambda: _none(onnx_checks.foreign_operators(subject.graph))),
        _check(
            "training mode", "nothing in training mode", lambda: _none(onnx_checks.training_operators(subject.graph))
        ),
        _check("inputs", onnx_checks.describe(INPUTS), lambda: _tensors(subject.graph, 0, INPUTS)),
        _check("outputs", onnx_checks.describe(OUTPUTS), lambda: _tensors(subject.graph, 1, OUTPUTS)),
        _check("batch", "one symbol in all three", lambda: _batch(subject.graph)),
        _check(
            "versions",
            f"at most operator set {LARGEST_OPSET}, IR version {LARGEST_IR_VERSION}",
            lambda: _versions(subject.graph),
        ),
        _check("onnx.checker", "valid, with strict shape inference", lambda: _onnx_checker(subject.graph)),
    ]


def check_batch_sizes(subject: Subject) -> Check:
    """Check that the file and the network agree at each of BATCH_SIZES."""
    sizes = ", ".join(map(str, BATCH_SIZES))
    bound = f"logits within {PARITY:g} at {sizes}"
    return _check("batch sizes", bound, lambda: _batch_sizes(subject))


def check_probabilities(subject: Subject, temperature: float) -> Check:
    """Check that the file's probabilities are those of its logits at the temperature that it was exported with."""
    bound = f"softmax of logits / {temperature:g} and sum 1 within {PROBABILITIES:g}"
    return _check("probabilities", bound, lambda: _probabilities(subject, temperature))


def require(checks: Iterable[Check]) -> None:
    """Do nothing if every check passed.

    Raises:
        VerificationFailed: some did not; the text has each with its figure and its bound.
    """
    failed = [f"{check.name}: found {check.figure}, expected {check.bound}" for check in checks if not check.passed]
    if failed:
        raise VerificationFailed("; ".join(failed))


def format_checks(checks: Iterable[Check]) -> str:
    """Return the checks as a table for the console."""
    rows = [(check.name, "passed" if check.passed else "FAILED", check.figure, check.bound) for check in checks]
    return format_table(("CHECK", "RESULT", "FIGURE", "BOUND"), rows)


def _check(name: str, bound: str, measure: Callable[[], tuple[str, bool]]) -> Check:
    """Take a measurement; one that cannot be taken has failed."""
    try:
        figure, passed = measure()
    except ModelRejected as error:
        figure, passed = error.found, False
    except (ServingError, ValueError) as error:
        figure, passed = str(error), False
    except Exception as error:  # what a broken file makes of whatever reads it
        figure, passed = f"{type(error).__name__}: {error}", False
    return Check(name=name, figure=figure, bound=bound, passed=bool(passed))


def _none(found: list[str]) -> tuple[str, bool]:
    return ", ".join(found[:3]) or "none found", not found


def _tensors(graph: onnx.ModelProto, side: int, expected: list[TensorSpec]) -> tuple[str, bool]:
    found = onnx_checks.tensor_specs(graph)[side]
    return onnx_checks.describe(found), found == expected


def _batch(graph: onnx.ModelProto) -> tuple[str, bool]:
    inputs, outputs = onnx_checks.tensor_specs(graph)
    sizes = [_first_dimension(spec) for spec in (*inputs, *outputs)]
    symbolic = all(isinstance(size, str) and size for size in sizes)
    return ", ".join(map(str, sizes)), symbolic and len(set(sizes)) == 1


def _first_dimension(spec: TensorSpec) -> int | str:
    return spec.shape[0] if spec.shape else "none"


def _versions(graph: onnx.ModelProto) -> tuple[str, bool]:
    opset, ir_version = onnx_checks.opset_of(graph), graph.ir_version
    readable = 0 < opset <= LARGEST_OPSET and 0 < ir_version <= LARGEST_IR_VERSION
    return f"operator set {opset}, IR version {ir_version}", readable


def _onnx_checker(graph: onnx.ModelProto) -> tuple[str, bool]:
    try:
        onnx.checker.check_model(graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return str(error).strip().partition("\n")[0], False
    return f"valid, {len(graph.graph.node)} operators", True


def _difference(found: Logits, expected: Logits) -> float:
    if found.shape != expected.shape:
        raise ValueError(f"shape {found.shape} instead of {expected.shape}")
    difference = float(np.abs(found - expected).max())
    if np.isnan(difference):
        # `max` would take any other difference instead.
        raise ValueError(f"logits that are not numbers in a batch of {len(found)}")
    return difference


def _batch_sizes(subject: Subject) -> tuple[str, bool]:
    batches = [subject.images[:size] for size in BATCH_SIZES]
    worst = max(_difference(subject.runtime.run(batch).logits, subject.reference(batch)) for batch in batches)
    return f"{worst:.2g}", worst <= PARITY


def _parity(subject: Subject) -> tuple[str, bool]:
    difference = _difference(subject.outputs.logits, subject.expected)
    return f"{difference:.2g}, {len(subject.images)} digits", difference <= PARITY


def _labels(subject: Subject) -> tuple[str, bool]:
    equal = int((subject.outputs.logits.argmax(axis=1) == subject.expected.argmax(axis=1)).sum())
    return f"{equal} of {len(subject.images)}", equal == len(subject.images)


def _companions(subject: Subject) -> tuple[str, bool]:
    """Compare rows of one large batch with the same rows alone, and among the same companions in another order."""
    batch = subject.images[: BATCH_SIZES[-1]]
    together = subject.runtime.run(batch).logits
    alone = np.concatenate([subject.runtime.run(batch[row : row + 1]).logits for row in range(64)])
    reordered = subject.runtime.run(batch[::-1]).logits[::-1]
    difference = max(_difference(alone, together[:64]), _difference(reordered, together))
    return f"{difference:.2g}", difference <= COMPANIONS


def _repetition(subject: Subject) -> tuple[str, bool]:
    first, second = (subject.runtime.run(subject.images[: BATCH_SIZES[-1]]).logits for _ in range(2))
    changed = int((first != second).any(axis=1).sum())
    return f"{changed} of {len(first)} rows differ", changed == 0


def _probabilities(subject: Subject, temperature: float) -> tuple[str, bool]:
    logits = subject.outputs.logits.astype(np.float64) / temperature
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax = exponentials / exponentials.sum(axis=1, keepdims=True)
    from_softmax = float(np.abs(subject.outputs.probabilities - softmax).max())
    from_one = float(np.abs(subject.outputs.probabilities.sum(axis=1, dtype=np.float64) - 1).max())
    return f"{from_softmax:.2g} and {from_one:.2g}", max(from_softmax, from_one) <= PROBABILITIES


def _check_accuracy(subject: Subject, digits: Digits, min_accuracy: float) -> list[Check]:
    served = cache(lambda: measure_accuracy(subject.runtime, digits))

    def measure(bound: float) -> tuple[str, bool]:
        evaluation = served()
        return f"{evaluation.accuracy:.4f} ({evaluation.correct} of {evaluation.total})", evaluation.accuracy >= bound

    floor = _check("accuracy", f"at least the recipe's floor, {min_accuracy:g}", lambda: measure(min_accuracy))
    try:
        own = evaluate(subject.reference, digits.images, digits.labels).accuracy
    except NotNumbers as error:
        return [floor, Check(name="accuracy kept", figure=str(error), bound="at least the checkpoint's", passed=False)]
    return [floor, _check("accuracy kept", f"at least the checkpoint's, {own:.4f}", lambda: measure(own))]


def measure_accuracy(runtime: OnnxModel, digits: Digits) -> Evaluation:
    """Return how often a served model is right."""
    return evaluate(lambda images: runtime.run(images).logits, digits.images, digits.labels)
