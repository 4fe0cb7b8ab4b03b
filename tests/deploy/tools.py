"""Programs and files that the tests of deploy/ read with."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from serving.metrics import Metrics

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"

# What a family of each type is called when it is scraped.
SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "summary": ("_sum", "_count"),
    "histogram": ("_bucket", "_sum", "_count"),
}


def program(name: str) -> str:
    """Return the path of a program, the environment's first; without it skip, or fail in CI where it is there."""
    if found := shutil.which(name, path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))):
        return found
    message = f"{name} is not installed"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def documents(path: Path) -> list[Any]:
    """Return what a YAML file holds."""
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document is not None]


def sample_names() -> dict[str, set[str]]:
    """Return the name of each sample that the service can expose, and its labels."""
    names = {}
    registry = Metrics(CollectorRegistry()).registry
    for metric in registry._collector_to_names:
        for family in metric.describe() if hasattr(metric, "describe") else ():
            for suffix in SUFFIXES[family.type]:
                names[family.name + suffix] = set(metric._labelnames) | ({"le"} if suffix == "_bucket" else set())
    return names
