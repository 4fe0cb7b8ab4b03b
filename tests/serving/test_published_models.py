import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest

from serving.manifest import MODEL_FILE_NAME
from serving.onnx_checks import opset_of
from serving.repository import Repository, load
from tests.conftest import Digits

MODELS = Repository(Path(__file__).parents[2] / "models")
PUBLISHED = [MODELS.folder(name, version) for name in MODELS.names() for version in MODELS.versions(name)]


def by_name(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


def test_there_are_models_to_serve():
    assert {"mnist-cnn", "mnist-lenet5", "mnist-mlp"} <= set(MODELS.names())


@pytest.mark.parametrize("folder", PUBLISHED, ids=by_name)
def test_the_accuracy_is_the_manifests_to_the_digit(folder: Path, test_digits: Digits):
    images, labels = test_digits
    model = load(folder, "cpu")
    pieces = [model.runtime.run(images[start : start + 1000]).logits for start in range(0, len(images), 1000)]
    correct = int((np.concatenate(pieces).argmax(axis=1) == labels).sum())
    (record,) = [record for record in model.manifest.accuracy if record.split == "test"]
    assert (record.correct, record.total, record.accuracy) == (correct, len(images), correct / len(images))


@pytest.mark.parametrize("folder", PUBLISHED, ids=by_name)
def test_every_check_passed_and_the_manifest_describes_the_file(folder: Path):
    manifest = load(folder, "cpu").manifest
    assert len(manifest.checks) >= 16
    assert all(check.passed for check in manifest.checks)
    graph = onnx.load(folder / MODEL_FILE_NAME)
    assert (manifest.opset, manifest.ir_version) == (opset_of(graph), graph.ir_version)
    assert [node.op_type for node in graph.graph.node if "Softmax" in node.op_type] == ["Softmax"]
    if _is_committed(folder):
        assert len(manifest.training.code_commit) == 40
    # Of one that was trained here, as `training.provenance` says it, of each code that went on with the run.
    commits = manifest.training.code_commit.split(", ")
    assert [commit for commit in commits if not re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", commit)] == []


def _is_committed(folder: Path) -> bool:
    """Return whether git knows a version; without git none is known."""
    listing = ["git", "ls-files", "--", str(folder / MODEL_FILE_NAME)]
    return bool(shutil.which("git") and subprocess.run(listing, cwd=folder, capture_output=True, check=False).stdout)


@pytest.mark.parametrize("folder", PUBLISHED, ids=by_name)
def test_anybody_may_read_it(folder: Path):
    assert [path.name for path in folder.iterdir() if not path.stat().st_mode & 0o004] == []
