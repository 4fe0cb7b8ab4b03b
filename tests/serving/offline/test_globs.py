import os
from pathlib import Path

import pytest

from serving.offline.job import own_places
from serving.offline.sources import FolderLabels, Inputs
from tests.serving.offline.conftest import Score, idx_bytes, png_bytes
from tests.serving.offline.test_sources import write_tree

LABELS = FolderLabels([str(digit) for digit in range(10)])


def found(root: Path, pattern: str) -> list[str]:
    """Return what a glob finds, below the root."""
    inputs = Inputs([str(root / pattern)], LABELS)
    return [source.error or str(source.path.relative_to(root)) for source in inputs]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a tree of files whose content does not matter."""
    for name in ("a/1/x.png", "a/1/y.png", "a/2.png", "a-b.png", ".DS_Store", "a/.hidden/z.png", "a/1/.z.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_globs_give_labels_below_their_fixed_part(score: Score, digits, tmp_path: Path):
    tree = write_tree(tmp_path / "5", digits[0][:4], ["3", "3", "1", "."])
    scored = score(tree / "**" / "*.png")
    assert [(Path(row["source"]).name, row["label"]) for row in scored.rows] == [
        ("003.png", None),
        ("002.png", 1),
        ("000.png", 3),
        ("001.png", 3),
    ]


@pytest.mark.parametrize("pattern", ["**", "**/*", "*", "[!.]*", "a*", "*/../*"])
def test_what_lies_in_a_folder_that_matches_is_found_once(tree: Path, pattern: str):
    names = [os.path.normpath(name) for name in found(tree, pattern)]
    everything = ["a-b.png", "a/1/x.png", "a/1/y.png", "a/2.png"]
    # Up to Python 3.12, ** alone matches folders only, the first of which is the root.
    assert sorted(names) == everything


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*/*", ["a/1/x.png", "a/1/y.png", "a/2.png"]),
        ("**/*.png", ["a/1/x.png", "a/1/y.png", "a/2.png", "a-b.png"]),
        (".*", [".DS_Store"]),
        ("a/.hidden/*", ["a/.hidden/z.png"]),
        ("a/.h*/*", ["a/.hidden/z.png"]),
        ("**.png", ["invalid pattern: '**' can only be an entire path component"]),
        ("none/*", ["no file matches"]),
    ],
)
def test_hidden_files_are_found_by_their_own_pattern_only(tree: Path, pattern: str, names: list[str]):
    if pattern == "**.png" and found(tree, pattern) != names:
        names = ["a-b.png"]  # from Python 3.13 on it is a pattern
    assert found(tree, pattern) == names


def test_a_file_of_labels_beside_its_images_is_no_input_of_a_glob(score: Score, digits, tmp_path: Path):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(digits[0]))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(digits[1]))
    scored = score(tmp_path / "t10k*")
    assert [row["label"] for row in scored.rows] == digits[1].tolist()
    assert score(tmp_path / "*labels*").code == 3


@pytest.mark.parametrize("argument", ["tree", "tree/*", "tree/**", "tree/**/*", "tree/../tree", "link", "link/*"])
def test_what_a_run_writes_into_its_input_is_no_input(
    score: Score, digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str
):
    tree = write_tree(tmp_path / "tree", digits[0][:2], [".", "."])
    (tree / "bad.png").write_bytes(b"bad")
    (tmp_path / "link").symlink_to(tree)
    output = tree / "scored.parquet"
    for folder in (".partial", ".retry"):
        (tree / f"{output.name}{folder}").mkdir()
        (tree / f"{output.name}{folder}" / "output").write_bytes(png_bytes(digits[0][0]))
    monkeypatch.chdir(tmp_path)
    assert len(score(argument, output=Path("tree") / output.name).rows) == 3
    assert score(argument, "--resume", output=output).code == 3


def test_the_summary_and_the_target_of_a_link_are_no_inputs(tree: Path):
    (tree / "link.csv").symlink_to("a/2.png")
    excluded = own_places(tree / "link.csv", tree / "a" / "1" / ".." / "1" / "x.png")
    for pattern in ("", "**/*.*"):
        inputs = Inputs([str(tree / pattern)], LABELS, excluded)
        assert [source.path.name for source in inputs] == ["y.png", "a-b.png"]
