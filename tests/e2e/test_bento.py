"""`bentoml build` and `bentoml serve TAG`."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput

from tests.e2e.conftest import Start
from tests.e2e.server import ROOT

KINDS = {".py", ".binpb", ".css", ".html", ".js", ".svg"}
MODEL_FILES = ("model.onnx", "layers.onnx", "manifest.json")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the tree in which lies what a working tree may hold."""
    tree = tmp_path_factory.mktemp("work") / "tree"
    for name in ("serving", "models", "requirements"):
        shutil.copytree(ROOT / name, tree / name)
    for name in ("bentofile.yaml", "README.md"):
        shutil.copy(ROOT / name, tree)
    strangers = (".venv/lib/x.py", "data/x.py", "tests/x.py", "training/x.py", "serving/.env", "serving/secret.pem")
    for name in (*strangers, "models/mnist-cnn/.staging-1/model.onnx", "serving/.cache/x.py", "models/x.py"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    (tree / "serving/passwd").symlink_to("/etc/passwd")
    (tree / "models/etc").symlink_to("/etc")
    (tree / "serving/data").symlink_to("../data")
    return tree


@pytest.fixture(scope="module")
def home(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return BentoML's home with a bento of that tree."""
    home = tmp_path_factory.mktemp("bentoml")
    environ = os.environ | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}
    command = [sys.executable, "-m", "bentoml", "build", "--output", "tag"]
    built = subprocess.run(command, cwd=tree, env=environ, capture_output=True, text=True, check=False, timeout=120)
    assert built.returncode == 0, built.stdout + built.stderr
    return home


def test_a_bento_holds_the_service_its_models_and_nothing_else(home: Path):
    (source,) = (home / "bentos" / "mnist_reader").glob("*/src")
    held = {str(path.relative_to(source)) for path in source.rglob("*") if not path.is_dir()}
    expected = {path for path in (ROOT / "serving").rglob("*") if path.suffix in KINDS}
    expected |= {path for name in MODEL_FILES for path in (ROOT / "models").glob(f"*/[0-9]*/{name}")}
    assert held == {str(path.relative_to(ROOT)) for path in expected} | {"bentofile.yaml"}


def test_a_bento_is_installed_from_the_lock_with_its_hashes(home: Path):
    (lock,) = (home / "bentos" / "mnist_reader").glob("*/env/python/requirements.txt")
    hashes = re.compile(r"--hash=sha256:[0-9a-f]{64}")
    expected = hashes.findall((ROOT / "requirements/serving-cpu.txt").read_text(encoding="utf-8"))
    assert len(expected) > 100
    assert hashes.findall(lock.read_text(encoding="utf-8")) == expected


def test_a_bento_serves_its_own_models_over_both_protocols(start: Start, home: Path, tmp_path: Path):
    (models,) = (home / "bentos" / "mnist_reader").glob("*/src/models")
    command = (sys.executable, "-m", "bentoml", "serve", "mnist_reader:latest")
    server = start(*command, BENTOML_HOME=str(home), MNIST_MODELS=str(models), cwd=tmp_path)
    server.wait_ready()
    answer = httpx.post(f"{server.url}/predict", content=(ROOT / "docs/seven.png").read_bytes()).json()
    assert answer["predictions"][0]["digit"] == 7
    tensor = InferInput("images", [3, 28, 28], "UINT8").set_data_from_numpy(np.zeros((3, 28, 28), np.uint8))
    with InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client:
        assert client.infer("mnist-mlp", [tensor]).as_numpy("probabilities").shape == (3, 10)
