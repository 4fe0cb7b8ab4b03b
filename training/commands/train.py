"""`train`: train a network by a recipe, a checkpoint after each epoch."""

import argparse
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from serving.options import whole_from

if TYPE_CHECKING:
    from training.listener import Listener
    from training.recipe import Recipe

# More than any machine has; torch dies of a number that the system refuses.
THREADS = whole_from(1, 1024)


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("train", help="train a network by a recipe")
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every command that trains wants to know."""
    parser.add_argument("architecture", help="mnist-mlp, mnist-cnn, ...")
    parser.add_argument("--recipe", default="seed", help="the recipe's name (default: seed)")
    parser.add_argument("--seed", type=whole_from(0), default=1, help="decides everything that is random (default: 1)")
    parser.add_argument("--epochs", type=whole_from(1), help="passes over the data (default: the recipe's)")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="go on from the checkpoint, to the same result")
    existing.add_argument("--restart", action="store_true", help="train anew although there is a checkpoint")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to train (default: cpu)")
    parser.add_argument("--threads", type=THREADS, default=1, help="CPU threads per operation (default: 1)")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the MNIST files (default: data)")
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder of the checkpoints (default: runs)")


def run(arguments: argparse.Namespace) -> int:
    """Train; return 0, or 130 if it was interrupted."""
    from serving.memory import MOST_FREE_BYTES, MOST_LARGE_BYTES, keep_free
    from training import mnist
    from training.checkpoint import load, path_of, written_by_one
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
    before = _stamp(path)
    # A step of mnist-resnet takes and frees 800 MB. That the system cleared them anew for each was a sixth of the time.
    keep_free(MOST_LARGE_BYTES, MOST_FREE_BYTES)
    try:
        with (
            joined(arguments.device) as group,
            nullcontext() if group.rank else written_by_one(path),
            _listener(group.rank) as listener,
        ):
            if resume:
                resume = load(path)  # another training may have gone on with it until now
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
        is_ours = arguments.resume or _stamp(path) not in {before, None}
        sys.stderr.write(f"{_interruption(path, is_ours, arguments.restart)}\n")
        return 130
    if group.rank == 0:
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


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from the one that replaces it; None if there is none."""
    if not path.exists():
        return None
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def _interruption(path: Path, is_ours: bool, restart: bool) -> str:
    """Say what an interrupted run leaves, and how to go on from it.

    Args:
        path: the checkpoint, which may be that of an older run, or none.
        is_ours: whether the run has written it, or has gone on from it.
        restart: whether the command says --restart.
    """
    from training.checkpoint import load

    if not is_ours:
        return "interrupted before the first checkpoint"
    how = "the same command with --resume" + (" instead of --restart" if restart else "")
    if load(path).epoch == 0:
        return f"interrupted before the first whole epoch; {path} holds the untrained network: {how} goes on"
    return f"interrupted; {path} holds the last whole epoch: {how} goes on"
