"""`verify`: hold an ONNX file against the checkpoint that it was made from."""

import argparse
import math
import sys
from pathlib import Path


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("verify", help="run every check that publication demands")
    parser.add_argument("checkpoint", type=Path, help="file that `train` wrote")
    parser.add_argument("file", type=Path, help="file that `export` wrote")
    parser.add_argument("--temperature", type=float, default=1.0, help="what the file was exported with (default: 1)")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the MNIST files (default: data)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one line for each check; fail if one did."""
    from serving.errors import InvalidInput
    from training import mnist
    from training.checkpoint import load
    from training.verify import Digits, format_checks, require, verify

    if not 0 < arguments.temperature < math.inf:
        raise InvalidInput(f"--temperature {arguments.temperature:g}: expected a positive number")
    checkpoint = load(arguments.checkpoint)
    if not arguments.file.is_file():
        raise InvalidInput(f"no file {arguments.file}")
    data = mnist.load(arguments.data)
    checks = verify(
        arguments.file,
        checkpoint.model(),
        Digits(data.test_images.numpy(), data.test_labels.numpy()),
        temperature=arguments.temperature,
        min_accuracy=checkpoint.recipe.min_accuracy,
    )
    sys.stdout.write(format_checks(checks))
    require(checks)
    return 0
