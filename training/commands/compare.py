"""`compare`: all published models side by side, with their speed on this machine."""

import argparse
import sys
from pathlib import Path


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("compare", help="show all published models side by side")
    parser.add_argument("--models", type=Path, default=Path("models"), help="the model repository (default: models)")
    parser.add_argument("--threads", type=int, help="CPU threads per model (default: as many as the service takes)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; return 0."""
    from serving.repository import Repository, load
    from training.compare import comparison

    repository = Repository(arguments.models)
    folders = [repository.folder(name, version) for name in repository.names() for version in repository.versions(name)]
    sys.stdout.write(comparison(load(folder, "cpu", arguments.threads) for folder in folders))
    return 0
