"""The journal of a run: what a line vouches for stays, and a run of something else is not gone on with."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from serving.offline import journal as journals
from serving.offline.journal import Journal, ResumeRefused
from serving.offline.rows import SCHEMA
from serving.offline.sources import Position


def write_two(folder: Path) -> bytes:
    """Write a run of two tasks of one row each, and return its journal."""
    journal = Journal.create(folder, {}, bytes(16))
    row = dict.fromkeys(SCHEMA.names) | {"ordinal": 0}
    for position in (Position(1), Position(1, 2)):
        journal.append(pa.RecordBatch.from_pylist([row], SCHEMA), position)
    journal.close()
    return (folder / journals.JOURNAL).read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[:-1],
        lambda line: line.replace(b" 1 2", b" 1 3"),
        lambda line: b"x" + line,
        lambda line: line.replace(b" 1 2", b" one 2"),
        lambda line: line.replace(b" 1 2", b" 1"),
        lambda line: b"9" + line,
        lambda line: b"1" + line[line.index(b" ") :],
        lambda line: b"\xff" * len(line) + b"\n",
        lambda line: line[-1:],
    ],
)
def test_a_damaged_line_vouches_for_nothing_and_the_run_goes_on_before_it(
    tmp_path: Path, damage: Callable[[bytes], bytes]
):
    first, second = write_two(tmp_path / "a.partial").splitlines(keepends=True)
    (tmp_path / "a.partial" / journals.JOURNAL).write_bytes(first + damage(second))
    journal = Journal(tmp_path / "a.partial")
    assert (journal.rows, journal.errors, journal.position) == (1, 0, Position(1))
    (batch,) = journal.batches()
    journal.append(batch, Position(1, 2))
    assert (journal.rows, journal.errors, journal.position) == (2, 0, Position(1, 2))
    journal.close()
    assert (tmp_path / "a.partial" / journals.JOURNAL).read_bytes() == first + second
    assert [each.num_rows for each in journal.batches()] == [1, 1]


def test_rows_that_the_system_takes_in_pieces_are_whole(tmp_path: Path):
    write_two(tmp_path / "a.partial")
    journal = Journal(tmp_path / "a.partial")
    batch, _ = journal.batches()
    rows = journal._rows
    journal._rows = SimpleNamespace(write=lambda data: rows.write(data[:7]), close=rows.close)  # type: ignore[assignment]
    journal.append(batch, Position(2))
    journal.close()
    journal = Journal(tmp_path / "a.partial")
    journal.close()
    assert (journal.rows, journal.position) == (3, Position(2))


def test_a_row_that_was_damaged_is_scored_again(tmp_path: Path):
    write_two(tmp_path / "a.partial")
    rows = bytearray((tmp_path / "a.partial" / journals.ROWS).read_bytes())
    rows[-20] ^= 1
    (tmp_path / "a.partial" / journals.ROWS).write_bytes(rows)
    journal = Journal(tmp_path / "a.partial")
    journal.close()
    assert journal.rows == 1


@pytest.mark.parametrize("job", [{"model": "b", "scale": 1}, {"model": "a"}, {"model": "a", "scale": 1, "more": 2}])
def test_a_run_of_something_else_is_refused(tmp_path: Path, job: dict[str, Any]):
    Journal.create(tmp_path / "a.partial", {"model": "a", "scale": 1}, b"").close()
    journals.check_job(tmp_path / "a.partial", {"model": "a", "scale": 1})
    with pytest.raises(ResumeRefused, match="in the unfinished run and is"):
        journals.check_job(tmp_path / "a.partial", job)


def test_other_files_are_refused_but_for_those_that_may_have_changed(tmp_path: Path):
    folder, stamps = tmp_path / "a.partial", bytes(range(24))
    Journal.create(folder, {}, stamps).close()
    journals.check_sources(folder, stamps, frozenset())
    for count in (2, 4):
        with pytest.raises(ResumeRefused, match=f"had 3 input files, now there are {count}"):
            journals.check_sources(folder, bytes(8 * count), frozenset())
    changed = stamps[:8] + bytes(8) + stamps[16:]
    journals.check_sources(folder, changed, frozenset({1}))
    with pytest.raises(ResumeRefused, match="input file 2 of 3 has changed"):
        journals.check_sources(folder, changed, frozenset({0, 2}))
