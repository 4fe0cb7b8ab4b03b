"""`compare`: all published models side by side, with their speed on this machine."""

import argparse
import sys
from pathlib import Path

from training.commands.train import THREADS


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("compare", help="show all published models side by side")
    parser.add_argument("--models", type=Path, default=Path("models"), help="the model repository (default: models)")
    parser.add_argument("--threads", type=THREADS, help="CPU threads per model (default: as many as the service takes)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; return 1 if a version cannot be measured, which keeps no other from its row."""
    from serving.errors import ModelNotFound, ServingError
    from serving.repository import Repository, load
    from training.compare import comparison, measure

    repository = Repository(arguments.models)
    versions = [(name, version) for name in repository.names() for version in repository.versions(name)]
    if not versions:
        raise ModelNotFound(f"no models in {arguments.models}")
    rows = []
    for name, version in versions:
        try:
            rows.append(measure(load(repository.folder(name, version), "cpu", arguments.threads)))
        except (ServingError, OSError) as error:
            sys.stderr.write(f"error: {name}/{version}: {error}\n")
    sys.stdout.write(comparison(rows))
    return int(len(rows) < len(versions))
