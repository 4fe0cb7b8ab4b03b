"""The environments that make makes, with an interpreter that only notes what it is asked for."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Says which it is, passes or fails the check of its version, makes an environment of itself, and does nothing else.
INTERPRETER = """#!/bin/sh
case "$1$2" in
  -VV) echo "Python {version}" ;;
  -c*) exit {old} ;;
  -mvenv) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
esac
"""


def write_interpreter(path: Path, version: str, old: int) -> Path:
    path.write_text(INTERPRETER.format(version=version, old=old), encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a tree with what make needs, and the test of an image that only says by whom it would be tested."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    (tmp_path / "deploy").mkdir()
    script = tmp_path / "deploy" / "image-test.sh"
    script.write_text('#!/bin/sh\necho "tested by ${PYTHON:-its own}"\n', encoding="utf-8")
    script.chmod(0o755)
    write_interpreter(tmp_path / "python", "3.11.7", 0)
    return tmp_path


def make(tree: Path, target: str, python: str = "./python") -> subprocess.CompletedProcess[str]:
    # Its options may come from another make, and a uv would ask an interpreter more than this one knows.
    command = ["env", "-u", "MAKEFLAGS", "-u", "MAKELEVEL", "make", target, f"PYTHON={python}", "UV=", "RUNTIME=cpu"]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False, timeout=60)


def test_an_environment_is_made_once_and_anew_for_another_interpreter(tree: Path):
    assert "-m venv" in make(tree, "environment-fuzz").stdout
    assert "-m venv" not in make(tree, "environment-fuzz").stdout
    write_interpreter(tree / "python", "3.13.0", 0)
    assert "-m venv" in make(tree, "environment-fuzz").stdout


def test_an_environment_stays_where_the_interpreter_for_another_is_too_old_or_missing(tree: Path):
    assert make(tree, "environment-fuzz").returncode == 0
    write_interpreter(tree / "old", "3.10.1", 1)
    for python in ("./old", "./missing"):
        assert make(tree, "environment-fuzz", python).returncode != 0
        assert (tree / ".venv-fuzz" / "bin" / "python").exists()


def test_the_image_is_tested_in_the_environment_whatever_interpreter_that_was_made_with(tree: Path):
    made = make(tree, "image-test")
    assert (made.returncode, made.stdout.splitlines()[-1]) == (0, "tested by .venv/bin/python"), made.stderr
