import os
from pathlib import Path

import pytest

from tests.serving.offline.conftest import Score, write_csv


@pytest.fixture
def rows(digits, tmp_path: Path) -> Path:
    """Return a CSV file of 100 rows, one of which is bad."""
    path = tmp_path / "rows.csv"
    lines = write_csv(path, digits[0]).read_text().splitlines()
    path.write_text("\n".join([*lines[:50], "1,2,x", *lines[51:]]) + "\n")
    return path


@pytest.mark.parametrize("output", ["missing/scored.csv", "."])
def test_an_output_that_cannot_be_is_refused_before_the_work(score: Score, rows: Path, tmp_path: Path, output: str):
    scored = score(rows, output=tmp_path / output)
    assert scored.code == 1
    assert "expected a file in a folder that exists" in scored.stderr


def test_an_output_that_is_no_regular_file_is_refused_and_stays(score: Score, rows: Path, tmp_path: Path):
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for output in (pipe, link, Path("/dev/null")):
        scored = score(rows, output=output)
        assert (scored.code, scored.stderr) == (1, f"error: {output}: expected a regular file\n")
    assert pipe.is_fifo()


def test_an_output_that_is_a_link_stays_one(score: Score, rows: Path, tmp_path: Path):
    link, target = tmp_path / "link.csv", tmp_path / "elsewhere" / "target.csv"
    target.parent.mkdir()
    link.symlink_to(target)
    for _ in range(2):
        assert score(rows, output=link).code == 3
        assert link.readlink() == target
    assert len(target.read_text().splitlines()) == 101
    assert score(target, output=link).stderr == f"error: {link} is an input\n"
