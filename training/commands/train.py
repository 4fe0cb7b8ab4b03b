"""`train`: train a network by a recipe, a checkpoint after each epoch."""

import argparse
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.listener import Listener
    from training.recipe import Recipe


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("train", help="train a network by a recipe")
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every command that trains wants to know."""
    parser.add_argument("architecture", help="mnist-mlp, mnist-cnn, ...")
    parser.add_argument("--recipe", default="seed", help="the recipe's name (default: seed)")
    parser.add_argument("--seed", type=int, default=1, help="decides everything that is random (default: 1)")
    parser.add_argument("--epochs", type=_positive, help="passes over the data (default: the recipe's)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint, to the same result")
    parser.add_argument("--restart", action="store_true", help="train anew although there is a checkpoint")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to train (default: cpu)")
    parser.add_argument("--threads", type=_positive, default=1, help="CPU threads per operation (default: 1)")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the MNIST files (default: data)")
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder of the checkpoints (default: runs)")


def run(arguments: argparse.Namespace) -> int:
    """Train; return 0, or 130 if it was interrupted."""
    from training import mnist
    from training.checkpoint import load, path_of
    from training.distributed import joined
    from training.errors import CheckpointRejected
    from training.fit import fit
    from training.recipe import find

    recipe = find(arguments.architecture, arguments.recipe)
    if arguments.epochs:
        recipe = replace(recipe, epochs=arguments.epochs)
    _check_device(arguments.device)
    recipe = _in_fast_precision(recipe, arguments.device)
    path = path_of(arguments.output, recipe, arguments.seed)
    if path.exists() and not (arguments.resume or arguments.restart):
        raise CheckpointRejected(f"{path} is there: --resume goes on from it, --restart trains anew")
    resume = load(path) if arguments.resume else None
    data = mnist.load(arguments.data)
    try:
        with joined(arguments.device) as group, _listener(group.rank) as listener:
            fit(
                recipe,
                data,
                seed=arguments.seed,
                device=arguments.device,
                threads=arguments.threads,
                save_to=path,
                resume=resume,
                listener=listener,
                group=group,
            )
    except KeyboardInterrupt:
        sys.stderr.write(f"interrupted; {path} holds the last whole epoch: the same command with --resume goes on\n")
        return 130
    sys.stdout.write(f"checkpoint: {path}\n")
    return 0


def _listener(rank: int) -> AbstractContextManager["Listener"]:
    """Return the console for the first process of a run, and silence for the others."""
    from training.console import Console
    from training.listener import Silence

    return nullcontext(Silence()) if rank else Console()


def _check_device(device: str) -> None:
    import torch

    from serving.errors import ConfigurationError

    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("--device cuda: torch finds no CUDA device here; --device cpu always works")


def _in_fast_precision(recipe: "Recipe", device: str) -> "Recipe":
    """Return the recipe in float32 where the device has no instructions for the precision that it asks for."""
    from training.precision import has_bfloat16

    if recipe.precision == "float32" or has_bfloat16(device):
        return recipe
    sys.stderr.write(f"{device}: no instructions for {recipe.precision}, training in float32\n")
    return replace(recipe, precision="float32")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {text!r}")
    return int(text)
