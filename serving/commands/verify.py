"""`python -m serving verify`: the checks of a model's load, without serving it."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.repository import Repository
    from serving.runtime import Device


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("verify", help="check published models as the service does before it serves them")
    parser.add_argument("model", nargs="*", help="NAME, or NAME/VERSION; all versions of all models by default")
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="the model repository (MNIST_MODELS or models)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to run (%(default)s)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check the chosen versions, print one line for each; return 1 if one failed or there is none."""
    from serving.installation import check_installation
    from serving.repository import Repository
    from serving.settings import read_settings
    from serving.table import format_table

    check_installation()
    models = arguments.models or read_settings(os.environ).models
    folders = list(_chosen(Repository(models), arguments.model))
    if not folders:
        sys.stderr.write(f"error: no models in {models}\n")
        return 1
    verdicts = [_verdict(folder, arguments.device) for folder in folders]
    rows = [(folder.parent.name, folder.name, *verdict) for folder, verdict in zip(folders, verdicts, strict=True)]
    sys.stdout.write(format_table(("MODEL", "VERSION", "RESULT", "DETAIL"), rows))
    return int(any(result != "passed" for result, _ in verdicts))


def _chosen(repository: "Repository", models: list[str]) -> list[Path]:
    from serving.errors import ModelNotFound

    folders = []
    for model in models or repository.names():
        name, _, version = model.partition("/")
        if version and not version.isdecimal():
            raise ModelNotFound(f"no version {version!r} of {name}: a version is a whole number")
        versions: list[int | None] = [int(version)] if version else [*repository.versions(name)] or [None]
        folders += [repository.folder(name, number) for number in versions]
    return folders


def _verdict(folder: Path, device: "Device") -> tuple[str, str]:
    from serving.errors import ModelRejected
    from serving.repository import load

    try:
        model = load(folder, device)
    except (ModelRejected, OSError) as error:  # a file that cannot be read keeps no other from its line
        return "FAILED", str(error)
    test = next((split for split in model.manifest.accuracy if split.split == "test"), None)
    accuracy = f", accuracy {test.accuracy:.2%} on the test set" if test else ""
    return "passed", f"{len(model.manifest.golden)} golden digits on {model.runtime.provider}{accuracy}"
