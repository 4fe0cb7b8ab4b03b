"""`python -m serving serve`: the service, with its settings from the environment."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from serving.ending import hold_signals

if TYPE_CHECKING:
    from serving.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("serve", help="serve the models on PORT, V2_PORT and GRPC_PORT until SIGTERM")
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Become `bentoml serve`, or say what is wrong with the settings."""
    hold_signals()
    from serving.settings import read_settings
    from serving.start import check_models, check_port, check_temporary_folder

    settings = read_settings(os.environ)
    paths = absolute_paths(settings)
    os.environ.update(paths)
    check_models(ROOT / paths.get("MNIST_MODELS", settings.models))
    check_temporary_folder()
    check_port("PORT", settings.host, settings.port)
    if sys.stdin and sys.stdin.isatty() and os.getpid() != 1:
        # Ctrl-C comes from a person, who has nobody to tell first that readiness has failed. The first process of a
        # container may have a terminal, too, but is stopped by the platform.
        os.environ.setdefault("MNIST_DRAIN_S", "0")
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    # A worker that dies shall come back in a container, too; this variable forbids it.
    os.environ.pop("BENTOML_CONTAINERIZED", None)
    command = [sys.executable, "-m", "bentoml", "serve", "serving.service:MnistReader", "--working-dir", str(ROOT)]
    os.execv(sys.executable, command)


def absolute_paths(settings: "Settings") -> dict[str, str]:
    """Return the variables of the files and folders that were given, absolute.

    The workers run in another folder than the caller, who means his own.
    """
    from serving.settings import Settings, unit_of, variable

    given = {field: unit_of(Settings.model_fields[field]) for field in settings.model_fields_set}
    paths = [field for field, unit in given.items() if unit in ("file", "folder")]
    return {variable(field): str(Path(getattr(settings, field)).absolute()) for field in paths}
