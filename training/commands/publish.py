"""`publish`: export and check a checkpoint, and put it where the service finds it."""

import argparse
import sys
from pathlib import Path


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("publish", help="export, check and publish a checkpoint as a new model version")
    parser.add_argument("checkpoint", type=Path, help="file that `train` wrote")
    parser.add_argument("--models", type=Path, default=Path("models"), help="the model repository (default: models)")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the MNIST files (default: data)")
    parser.add_argument("--once", action="store_true", help="publish nothing if a version has these weights already")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Publish; return 0."""
    from training import mnist
    from training.checkpoint import load, siblings
    from training.choices import choose
    from training.publish import find_published, publish
    from training.verify import format_checks

    checkpoint = load(arguments.checkpoint)
    data = mnist.load(arguments.data)
    choices = choose(checkpoint, data)
    if arguments.once and (folder := find_published(checkpoint, arguments.models, choices.temperature)):
        sys.stdout.write(f"published already: {folder}\n")
        return 0
    folder = publish(
        checkpoint,
        data,
        arguments.models,
        lambda checks: sys.stdout.write(format_checks(checks)),
        temperature=choices.temperature,
        acceptance=choices.acceptance,
        siblings=siblings(arguments.checkpoint, checkpoint),
        once=arguments.once,  # another may have published them since
    )
    sys.stdout.write(f"published: {folder}\n")
    return 0
