"""`evaluate`: how often the weights in a file are right on the test set, and what they take for what."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.evaluate import Evaluation


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("evaluate", help="measure a checkpoint, or a bare state_dict, on the test set")
    parser.add_argument("file", type=Path, help="a checkpoint, or what torch.save(model.state_dict(), FILE) wrote")
    parser.add_argument("--architecture", help="the network that a bare state_dict belongs to")
    parser.add_argument(
        "--through-preprocessing",
        action="store_true",
        help="send each digit as a picture through the service's own road",
    )
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the MNIST files (default: data)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; return 0."""
    from training.checkpoint import load, load_weights
    from training.evaluate import evaluate, predictor
    from training.mnist import load as load_mnist

    path, architecture = arguments.file, arguments.architecture
    model = load_weights(path, architecture) if architecture else load(path).model()
    data = load_mnist(arguments.data)
    images = data.test_images.numpy()
    if arguments.through_preprocessing:
        from training.pictures import sent

        images = sent(images)
    sys.stdout.write(_text(evaluate(predictor(model), images, data.test_labels.numpy())))
    return 0


def _text(evaluation: "Evaluation") -> str:
    low, high = evaluation.interval_95
    counts = "\n".join(
        f"{digit:5d}" + "".join(f"{count:6d}" for count in row) for digit, row in enumerate(evaluation.confusion)
    )
    return (
        f"{evaluation.correct} of {evaluation.total} right: {100 * evaluation.accuracy:.2f} %"
        f" (95 % interval {100 * low:.2f} to {100 * high:.2f} %)\n"
        f"true  read as\n     {''.join(f'{digit:6d}' for digit in range(10))}\n{counts}\n"
    )
