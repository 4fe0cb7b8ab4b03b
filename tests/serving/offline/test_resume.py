"""A run that goes on where it was, among files that have changed since: nothing is lost and nothing is there twice."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from serving.errors import ServingError
from serving.offline import csv_lines
from serving.offline import journal as journals
from serving.offline.job import partial_folder
from serving.offline.journal import Journal, Retry
from serving.offline.rows import SCHEMA
from serving.offline.sources import Position
from tests.serving.offline.conftest import Score, expected_digits, png_bytes, write_csv
from tests.serving.offline.test_archives import write_zip


@pytest.fixture(autouse=True)
def _small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_lines, "BLOCK_BYTES", 1 << 14)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "scored.parquet"


def cut_journal(output: Path, lines: int) -> int:
    """Leave what a run that was killed leaves; return how many tasks it has done."""
    journal = partial_folder(output) / journals.JOURNAL
    kept = journal.read_bytes().splitlines(keepends=True)[:lines]
    journal.write_bytes(b"".join(kept))
    output.unlink(missing_ok=True)
    return len(kept)


def failed_sources(output: Path) -> frozenset[int]:
    """Return which sources have errors in what is safe."""
    Journal(partial_folder(output)).close()
    return Retry(partial_folder(output)).failed


def write_bad_csv(path: Path, images: Any) -> Path:
    """Write a CSV file whose 30th row is bad."""
    lines = write_csv(path, images).read_text().splitlines()
    path.write_text("\n".join([*lines[:30], "1,2,x", *lines[31:]]) + "\n")
    return path


def write_zip_of(path: Path, images: Any, bad: int) -> Path:
    """Write pictures, the first of which are bad."""
    return write_zip(path, {f"{at:03}.png": b"bad" if at < bad else png_bytes(im) for at, im in enumerate(images)})


def test_g02_a_file_that_failed_and_has_another_number_of_tasks_shifts_nothing(
    score: Score, digits, tmp_path: Path, output: Path
):
    (tmp_path / "a.csv").touch()
    inputs = [tmp_path / "a.csv", write_csv(tmp_path / "b.csv", digits[0])]
    assert score(*inputs).errors() == ["empty", *[None] * 100]
    write_csv(inputs[0], digits[0][:60])
    scored = score(*inputs, "--retry-failed")
    assert (scored.code, scored.digits()) == (0, expected_digits(digits[0][:60]) + expected_digits(digits[0]))
    assert scored.summary["earlier_rows"] == 100


@pytest.mark.parametrize("lines", [0, 1, 5, 8, 12, 13, 14, 17, 99])
def test_g02_a_killed_run_goes_on_beside_repaired_files(score: Score, digits, tmp_path: Path, output: Path, lines: int):
    images = digits[0]
    inputs = [
        write_csv(tmp_path / "good.csv", images[:20]),
        write_bad_csv(tmp_path / "a.csv", images[:60]),
        write_zip_of(tmp_path / "b.zip", images[:50], 1),
        tmp_path / "c.png",
        write_zip_of(tmp_path / "d.zip", images[:40], 1),
        write_csv(tmp_path / "e.csv", images[:30]),
    ]
    inputs[3].write_bytes(b"bad")
    assert score(*inputs).summary["errors"] == 4
    done = cut_journal(output, lines)
    assert done == lines or lines == 99
    repaired = failed_sources(output)
    if 1 in repaired:
        write_csv(inputs[1], images[:10])
    if 2 in repaired:
        write_zip_of(inputs[2], images[:5], 0)
    if 3 in repaired:
        inputs[3].write_bytes(png_bytes(images[0]))
    if 4 in repaired:
        write_zip_of(inputs[4], images[:90], 0)
    scored = score(*inputs, "--retry-failed")
    expected = score(*inputs, output=tmp_path / "anew.parquet")
    assert scored.rows == expected.rows
    assert scored.code == expected.code


@pytest.mark.parametrize("lines", [6, 9])
def test_g02_a_retry_that_is_killed_can_be_resumed_and_retried(
    score: Score, digits, tmp_path: Path, output: Path, lines: int
):
    inputs = [write_bad_csv(tmp_path / "a.csv", digits[0][:60]), write_csv(tmp_path / "b.csv", digits[0])]
    whole = score(*inputs)
    cut_journal(output, 4)
    write_csv(inputs[0], digits[0][:60])
    assert score(*inputs, "--retry-failed").code == 0
    write_bad_csv(inputs[0], digits[0][:60])
    score(*inputs)
    cut_journal(output, 4)
    assert score(*inputs, "--retry-failed").rows == whole.rows
    cut_journal(output, lines)
    assert score(*inputs, "--resume").rows == whole.rows
    cut_journal(output, lines)
    assert score(*inputs, "--retry-failed").rows == whole.rows


def test_g02_a_repaired_file_that_was_not_finished_is_read_anew_and_no_longer_a_failed_one(
    score: Score, digits, tmp_path: Path, output: Path
):
    inputs = [write_bad_csv(tmp_path / name, digits[0][:60]) for name in ("a.csv", "b.csv")]
    score(*inputs)
    cut_journal(output, 6)
    assert failed_sources(output) == {0}
    write_csv(inputs[0], digits[0][:40])
    stopped = score(*inputs, "--retry-failed", "--fail-fast")
    assert (stopped.code, stopped.stderr[:9]) == (1, "error: 1 ")
    assert failed_sources(output) == {1}
    assert score(*inputs, "--resume").rows == score(*inputs, output=tmp_path / "anew.parquet").rows


def refuse(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    opened = Path.open

    def refused(self: Path, *arguments: Any, **options: Any):
        if self == path:
            raise PermissionError(13, "Permission denied")
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refused)


@pytest.mark.parametrize("lines", [1, 3, 99])
def test_g02_a_file_that_can_be_read_only_later_stays_one_error(
    score: Score, digits, tmp_path: Path, output: Path, lines: int
):
    inputs = [write_csv(tmp_path / name, digits[0][:60]) for name in ("a.csv", "b.csv")]
    with pytest.MonkeyPatch.context() as patched:
        refuse(patched, inputs[0])
        first = score(*inputs)
    assert first.errors() == ["permission denied", *[None] * 60]
    cut_journal(output, lines)
    assert score(*inputs, "--resume").rows == first.rows
    assert score(*inputs, "--retry-failed").digits() == expected_digits(digits[0][:60]) * 2


def test_g02_a_file_that_can_no_longer_be_read_is_an_error_behind_what_was_read(
    score: Score, digits, tmp_path: Path, output: Path
):
    inputs = [write_bad_csv(tmp_path / "a.csv", digits[0][:60]), write_csv(tmp_path / "b.csv", digits[0])]
    first = score(*inputs)
    cut_journal(output, 4)
    with pytest.MonkeyPatch.context() as patched:
        refuse(patched, inputs[0])
        second = score(*inputs, "--resume")
    kept = second.errors().index("permission denied")
    assert 0 < kept < 60
    assert second.rows[:kept] == [*first.rows[:kept]]
    assert [row["digit"] for row in second.rows[kept + 1 :]] == expected_digits(digits[0])
    assert score(*inputs, "--retry-failed").rows == first.rows


@pytest.mark.parametrize("name", [journals.ROWS, journals.JOURNAL])
def test_g02_a_torn_write_is_repaired_before_a_retry(score: Score, digits, tmp_path: Path, output: Path, name: str):
    (tmp_path / "a.csv").touch()
    inputs = [tmp_path / "a.csv", write_csv(tmp_path / "b.csv", digits[0][:60])]
    score(*inputs)
    file = partial_folder(output) / name
    file.write_bytes(file.read_bytes()[:-10])
    write_csv(inputs[0], digits[0][:20])
    scored = score(*inputs, "--retry-failed")
    assert (scored.code, scored.digits()) == (0, expected_digits(digits[0][:20]) + expected_digits(digits[0][:60]))


@pytest.mark.parametrize("limit", [["--fail-fast"], ["--max-errors", "0"], ["--max-errors", "0%"]])
def test_errors_that_are_retried_count_only_if_they_come_again(
    score: Score, digits, tmp_path: Path, output: Path, limit: list[str]
):
    pictures = [tmp_path / f"{number}.png" for number in range(3)]
    for path in pictures[:2]:
        path.write_bytes(b"bad")
    pictures[2].write_bytes(png_bytes(digits[0][2]))
    score(*pictures)
    before = output.read_bytes()
    pictures[0].write_bytes(png_bytes(digits[0][0]))
    scored = score(*pictures, "--retry-failed", *limit)
    assert scored.code == 1
    assert "1 errors in " in scored.stderr
    assert output.read_bytes() == before
    assert not output.with_name("scored.parquet.retry").exists()
    pictures[1].write_bytes(png_bytes(digits[0][1]))
    scored = score(*pictures, "--retry-failed", *limit)
    assert (scored.code, scored.digits()) == (0, expected_digits(digits[0][:3]))


@pytest.mark.parametrize("left", [0, 2, 4])
def test_g02_a_retry_that_is_killed_while_it_takes_its_place_is_found(
    score: Score, digits, tmp_path: Path, output: Path, left: int
):
    path = write_bad_csv(tmp_path / "a.csv", digits[0][:60])
    whole = score(path)
    folder = partial_folder(output)
    shutil.copytree(folder, folder.with_suffix(".retry"))
    for name in journals.OWN[: len(journals.OWN) - left]:
        (folder / name).unlink(missing_ok=True)
    if not left:
        folder.rmdir()
    scored = score(path, "--resume")
    assert (scored.rows, scored.summary["earlier_rows"]) == (whole.rows, 60)
    assert not folder.with_suffix(".retry").exists()


def test_a_folder_that_holds_anything_else_is_refused_and_left(score: Score, digits, tmp_path: Path, output: Path):
    thesis = partial_folder(output) / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("mine")
    scored = score(write_csv(tmp_path / "a.csv", digits[0][:3]))
    assert scored.code == 1
    assert f"{thesis.parent} holds 'thesis.txt', expected files of a run alone" in scored.stderr
    assert [path.name for path in thesis.parent.iterdir()] == ["thesis.txt"]


def test_of_two_runs_that_begin_at_once_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "a.partial"
    made = list[Journal]()
    touched = Path.touch

    def touch(self: Path, **options: Any) -> None:
        monkeypatch.setattr(Path, "touch", touched)
        made.append(Journal.create(folder, {}, b""))
        touched(self, **options)

    monkeypatch.setattr(Path, "touch", touch)
    with pytest.raises(ServingError, match="another process is writing"):
        Journal.create(folder, {}, b"")
    (first,) = made
    first.close()
    Journal(folder).close()


def test_what_comes_before_an_unfinished_file_stays(tmp_path: Path):
    journal = Journal.create(tmp_path / "a.partial", {}, bytes(16))
    row = dict.fromkeys(SCHEMA.names) | {"ordinal": 0}
    for position in (Position(1), Position(1, 2)):
        journal.append(pa.RecordBatch.from_pylist([row], SCHEMA), position)
    journal.close()
    journal = Journal(tmp_path / "a.partial")
    journal.forget_unfinished(frozenset({1}), bytes(16))
    assert (journal.rows, journal.position) == (1, Position(1))
    journal.close()


def test_a_journal_that_another_has_removed_is_not_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Journal.create(tmp_path / "a.partial", {}, b"").close()

    def lock(*arguments: object) -> None:
        journals.remove(tmp_path / "a.partial")

    monkeypatch.setattr("fcntl.flock", lock)
    with pytest.raises(ServingError, match="another process is writing"):
        Journal(tmp_path / "a.partial")


@pytest.mark.parametrize("name", [journals.JOB, journals.SOURCES, journals.ROWS, journals.JOURNAL])
def test_a_folder_that_was_being_removed_is_no_unfinished_run(
    score: Score, digits, tmp_path: Path, output: Path, name: str
):
    path = write_bad_csv(tmp_path / "a.csv", digits[0][:60])
    whole = score(path)
    for file in partial_folder(output).iterdir():
        if file.name != name:
            file.unlink()
    assert "no run with errors" in score(path, "--retry-failed").stderr
    assert score(path, "--resume").rows == whole.rows


def test_g02_a_journal_of_an_older_release_is_refused_and_left_as_it_is(
    score: Score, digits, tmp_path: Path, output: Path
):
    path = write_bad_csv(tmp_path / "a.csv", digits[0][:60])
    whole = score(path)
    folder = partial_folder(output)
    job, journal = folder / journals.JOB, folder / journals.JOURNAL
    job.write_text(
        json.dumps({name: value for name, value in json.loads(job.read_text()).items() if name != "journal"})
    )
    old = b"".join(b" ".join(line.split()[:2]) + b"\n" for line in journal.read_bytes().splitlines())
    journal.write_bytes(old)
    for option in ("--resume", "--retry-failed"):
        scored = score(path, option)
        assert scored.stderr == f"error: the run in {folder} is of another release: begin anew, without --resume\n"
    assert journal.read_bytes() == old
    assert score(path).rows == whole.rows


def test_a_resumed_run_may_have_another_form(score: Score, digits, tmp_path: Path):
    path = write_bad_csv(tmp_path / "a.csv", digits[0][:60])
    output = tmp_path / "submission.csv"
    assert "give --fallback-label" in score(path, "--format", "kaggle", output=output).stderr
    scored = score(path, "--format", "kaggle", "--fallback-label", 7, "--resume", output=output)
    assert scored.summary["earlier_rows"] == scored.summary["rows"] == 60
    labels = [int(line.split(",")[1]) for line in output.read_text().splitlines()[1:]]
    assert labels == [*expected_digits(digits[0][:29]), 7, *expected_digits(digits[0][30:60])]
