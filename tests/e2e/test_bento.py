"""`bentoml build` and `bentoml serve TAG`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx

from tests.e2e.conftest import Start
from tests.e2e.server import ROOT


def test_a_built_bento_serves(start: Start, tmp_path: Path):
    """The build takes what it needs from the sources and the models, and nothing else from the working tree."""
    home = tmp_path / "bentoml"
    environ = os.environ | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}
    command = [sys.executable, "-m", "bentoml", "build", "--output", "tag"]
    built = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (bento,) = [path for path in (home / "bentos" / "mnist_reader").iterdir() if path.is_dir()]
    there = {path.relative_to(bento / "src").parts[0] for path in (bento / "src").rglob("*") if path.is_file()}
    assert {"serving", "bentofile.yaml"} <= there
    assert not there & {"data", "training", "tests", ".venv"}
    server = start(sys.executable, "-m", "bentoml", "serve", "mnist_reader:latest", BENTOML_HOME=str(home))
    server.wait_ready()
    assert httpx.post(f"{server.v2_url}/predict", json={"pixels": [1] * 784}).status_code == 200
    shutil.rmtree(home, ignore_errors=True)
