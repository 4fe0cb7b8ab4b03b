"""`train-all`: make every committed model anew."""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# In the order of versions.
PLAN = (
    ("mnist-mlp", "seed", (1,)),
    ("mnist-cnn", "seed", (1,)),
    ("mnist-lenet5", "seed", (1,)),
    ("mnist-resnet", "best", (1, 2, 3)),
    ("mnist-mlp", "best", (1,)),
    ("mnist-cnn", "best", (1,)),
    ("mnist-lenet5", "best", (1,)),
)


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("train-all", help="make every committed model anew")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, a thread each (default: 2)")
    parser.add_argument("--models", type=Path, default=Path("models"), help="the model repository (default: models)")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the MNIST files (default: data)")
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder of the checkpoints (default: runs)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Fetch, train what is not trained yet, and publish of each recipe the seed that validation likes best.

    Return the code of the first step that failed.
    """
    from training.commands import fetch_data

    if code := fetch_data.run(arguments):
        return code
    for architecture, recipe, seeds in PLAN:
        if code := _make(arguments, architecture, recipe, seeds):
            return code
    return 0


def _make(arguments: argparse.Namespace, architecture: str, recipe: str, seeds: Sequence[int]) -> int:
    """Train one recipe at each seed and publish the best."""
    from training.checkpoint import path_of
    from training.recipe import find

    paths = [path_of(arguments.output, find(architecture, recipe), seed) for seed in seeds]
    folders = ["--data", str(arguments.data), "--output", str(arguments.output)]
    lines = [
        ["train", architecture, "--recipe", recipe, "--seed", str(seed), *folders, *(["--resume"] * path.exists())]
        for seed, path in zip(seeds, paths, strict=True)
    ]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        codes = list(pool.map(_command, lines))
    if any(codes):
        return next(filter(None, codes))
    return _command(["publish", str(best_of(paths)), "--models", str(arguments.models), *folders[:2]])


def best_of(paths: Sequence[Path]) -> Path:
    """Return the checkpoint that read most validation images right after its last epoch; the first of equals."""
    from training.checkpoint import load

    return max(paths, key=lambda path: load(path).history[-1].accuracy)


def _command(arguments: list[str]) -> int:
    """Run a command of this program in a process of its own and return its exit code."""
    return subprocess.run([sys.executable, "-m", "training", *arguments], check=False).returncode
