"""`run`: the whole road from nothing to a published model."""

import argparse
import os
from pathlib import Path

from training.commands import fetch_data, publish, train


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("run", help="fetch the data, train, export, check and publish")
    train.add_arguments(parser)
    parser.add_argument("--models", type=Path, default=Path("models"), help="the model repository (default: models)")
    parser.set_defaults(run=run, once=True)


def run(arguments: argparse.Namespace) -> int:
    """Do every step; a checkpoint that is there already is gone on from. Return the code of the first that failed.

    Of several processes that train together the first publishes. Weights that a version has already are not published
    again: they would be served in place of what was published since.
    """
    from training.checkpoint import path_of
    from training.recipe import find

    checkpoint = path_of(arguments.output, find(arguments.architecture, arguments.recipe), arguments.seed)
    arguments.resume = arguments.resume or (checkpoint.exists() and not arguments.restart)
    arguments.checkpoint = checkpoint
    if code := fetch_data.run(arguments) or train.run(arguments):
        return code
    return publish.run(arguments) if _is_first() else 0


def _is_first() -> bool:
    """Say whether this process is the first that torchrun started, or alone."""
    return int(os.environ.get("WORLD_SIZE", "1")) == 1 or int(os.environ["RANK"]) == 0
