import subprocess
from pathlib import Path

import pytest

from training.provenance import OPENCV, code_commit, packages


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "fit.py").write_text("x = 1\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "Begin")
    return tmp_path


def test_a_clean_tree_has_its_commit(tree: Path):
    assert code_commit(tree) == git(tree, "rev-parse", "HEAD")


@pytest.mark.parametrize("name", ["training/fit.py", "training/new.py", "serving/preprocess.py"])
def test_changed_or_new_code_is_dirty(tree: Path, name: str):
    (tree / name).parent.mkdir(exist_ok=True)
    (tree / name).write_text("x = 2\n")
    assert code_commit(tree) == git(tree, "rev-parse", "HEAD") + "-dirty"


def test_changes_elsewhere_do_not_matter(tree: Path):
    (tree / "notes.txt").write_text("x\n")
    assert code_commit(tree) == git(tree, "rev-parse", "HEAD")


def test_a_folder_inside_another_projects_tree_has_no_commit(tree: Path):
    (tree / "unpacked" / "training").mkdir(parents=True)
    assert code_commit(tree / "unpacked") == "unknown"


def test_outside_git_and_without_git_the_commit_is_unknown(tree: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tree.parent))
    (tree.parent / "bare").mkdir()
    assert code_commit(tree.parent / "bare") == "unknown"
    monkeypatch.setenv("PATH", "")
    assert code_commit(tree) == "unknown"


def test_what_decides_the_weights_has_its_release():
    assert packages().keys() - OPENCV == {"torch", "numpy", "pillow", "matplotlib"}
    assert packages().keys() & OPENCV
    assert all(packages().values())
