"""`train-all`: make every committed model anew."""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

from serving.options import whole_from

if TYPE_CHECKING:
    from training.recipe import Recipe

# The longest first, so that no core waits for it alone; of one architecture in the order of versions.
PLAN = (
    ("mnist-resnet", "best", (1, 2, 3)),
    ("mnist-mlp", "seed", (1,)),
    ("mnist-cnn", "seed", (1,)),
    ("mnist-lenet5", "seed", (1,)),
    ("mnist-mlp", "best", (1,)),
    ("mnist-cnn", "best", (1,)),
    ("mnist-lenet5", "best", (1,)),
)


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("train-all", help="make every committed model anew")
    parser.add_argument("--jobs", type=whole_from(1), default=2, help="trainings at a time, a thread each (default: 2)")
    parser.add_argument("--models", type=Path, default=Path("models"), help="the model repository (default: models)")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the MNIST files (default: data)")
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder of the checkpoints (default: runs)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Fetch, train what is not trained yet, and publish of each recipe the seed that validation likes best, once.

    Return the code of the first step that failed; nothing is published before everything is trained. When a training
    fails no other is begun, and those that run come to their end.
    """
    from training.checkpoint import path_of
    from training.commands import fetch_data
    from training.recipe import find

    if code := fetch_data.run(arguments):
        return code
    plan = [(find(architecture, recipe), seeds) for architecture, recipe, seeds in PLAN]
    runs = [(recipe, seed) for recipe, seeds in plan for seed in seeds]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        try:
            jobs = [pool.submit(_train, arguments, *run) for run in runs]
            for job in as_completed(jobs):
                if code := job.result():
                    return code
        finally:  # also when it is interrupted, as those that run are
            pool.shutdown(cancel_futures=True)
    for recipe, seeds in plan:
        best = best_of([path_of(arguments.output, recipe, seed) for seed in seeds])
        folders = ["--models", str(arguments.models), "--data", str(arguments.data)]
        if code := _command(["publish", str(best), "--once", *folders]):
            return code
    return 0


def _train(arguments: argparse.Namespace, recipe: "Recipe", seed: int) -> int:
    """Train a recipe at one seed, or go on with what there is of it; return the exit code."""
    from training.checkpoint import path_of

    resume = ["--resume"] * path_of(arguments.output, recipe, seed).exists()
    folders = ["--data", str(arguments.data), "--output", str(arguments.output)]
    return _command(["train", recipe.architecture, "--recipe", recipe.name, "--seed", str(seed), *folders, *resume])


def best_of(paths: Sequence[Path]) -> Path:
    """Return the checkpoint that read most validation images right after its last epoch; the first of equals."""
    from training.checkpoint import load

    return max(paths, key=lambda path: load(path).history[-1].accuracy)


def _command(arguments: list[str]) -> int:
    """Run a command of this program in a process of its own and return its exit code."""
    return subprocess.run([sys.executable, "-m", "training", *arguments], check=False).returncode
