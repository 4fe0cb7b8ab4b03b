"""The rows of a run as they come, in a folder beside the output, so that a killed run goes on where it was.

Must not know: input formats, output formats, the model.

`rows.arrows` is an Arrow stream; `journal` has a line for each task: the end of its rows in that stream, a CRC-32, and
where the plan goes on behind it. What a line does not vouch for is cut off and scored again, so no write needs to
reach the disk in time.
"""

import fcntl
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]

from serving.errors import ServingError
from serving.offline.arrow import booleans, values_of
from serving.offline.rows import SCHEMA
from serving.offline.run_folder import JOB, JOURNAL, OUTPUT, ROWS, SOURCES
from serving.offline.sources import STAMP_BYTES, Position

NEW_SOURCES = f"{SOURCES}.new"

# What the folder may hold, in the order in which it is removed: without a job it is no run to go on with, and what
# holds the lock goes last.
OWN = (JOB, SOURCES, NEW_SOURCES, ROWS, OUTPUT, JOURNAL)

# How a journal is written: the first had no positions, without which a run cannot go on among changed files.
LAYOUT = 2


class ResumeRefused(ServingError):
    """There is no unfinished run, or it was a run of something else."""


class Journal:
    """The rows that are safe so far; open in one process at a time.

    Args:
        folder: holds the files of `create`.
        locked: its journal if that is open and locked already.

    Attributes:
        position: where the plan goes on.
        rows: how many rows are there.
        errors: how many of these are errors.
    """

    def __init__(self, folder: Path, locked: FileIO | None = None):
        self.folder = folder
        self._journal = locked or _open_locked(folder)
        self._rows = (folder / ROWS).open("r+b", buffering=0)
        self._size = (folder / ROWS).stat().st_size
        self._end = self._replay()

    @classmethod
    def create(cls, folder: Path, job: dict[str, Any], stamps: bytes) -> "Journal":
        """Begin a new run, and forget one that was there.

        Args:
            folder: is made.
            job: what must be the same for the run to go on, as JSON.
            stamps: 8 bytes for each source.

        Raises:
            ServingError: another process is writing there, or something lies there that is not of a run.
        """
        folder.mkdir(exist_ok=True)
        if foreign := sorted({path.name for path in folder.iterdir()}.difference(OWN)):
            raise ServingError(f"{folder} holds {foreign[0]!r}, expected files of a run alone: move it elsewhere")
        (folder / JOURNAL).touch()
        locked = _open_locked(folder)
        for name in OWN[:-1]:
            (folder / name).unlink(missing_ok=True)
        locked.truncate()
        (folder / SOURCES).write_bytes(stamps)
        (folder / ROWS).write_bytes(SCHEMA.serialize().to_pybytes())
        (folder / JOB).write_text(json.dumps({"journal": LAYOUT} | job, indent=1), encoding="utf-8")
        return cls(folder, locked)

    def _replay(self, last: Position | None = None) -> int:
        """Cut off what no line of the journal vouches for, or goes beyond `last`; return where the rows end."""
        self.position, self.rows, self.errors = Position(), 0, 0
        end, kept = self._rows.seek(len(SCHEMA.serialize())), 0
        self._journal.seek(0)
        for line in self._journal.readall().splitlines(keepends=True):
            batch = self._vouched(line, end)
            if batch is None or (last and _position(line) > last):
                break
            kept += len(line)
            end = self._rows.tell()
            self._count(batch, _position(line))
        self._journal.truncate(kept)
        self._journal.seek(kept)
        self._rows.truncate(end)
        self._rows.seek(end)
        return end

    def _vouched(self, line: bytes, start: int) -> pa.RecordBatch | None:
        fields = line.split()
        if not line.endswith(b"\n") or len(fields) != 4 or not all(fields[at].isdigit() for at in (0, 2, 3)):
            return None
        end = int(fields[0])
        if not start < end <= self._size:
            return None
        data = self._rows.read(end - start)
        if _line(start + len(data), data, _position(line)) != line:
            return None
        return pa.ipc.read_record_batch(pa.py_buffer(data), SCHEMA)

    def _count(self, batch: pa.RecordBatch, position: Position) -> None:
        self.position = position
        self.rows += batch.num_rows
        self.errors += batch.num_rows - batch.column("error").null_count

    def append(self, batch: pa.RecordBatch, position: Position) -> None:
        """Keep the rows of the next task, behind which the plan goes on at `position`.

        Raises:
            OSError: the disk is full.
        """
        data = memoryview(batch.serialize())
        end = self._end + len(data)
        line = _line(end, data, position)
        while len(data):
            data = data[self._rows.write(data) :]
        self._end = end
        self._journal.write(line)
        self._count(batch, position)

    def forget_unfinished(self, changed: frozenset[int], stamps: bytes) -> None:
        """Go back behind the last source if it is a changed one that is not finished, to read it from its beginning.

        Args:
            changed: sources that may have changed.
            stamps: of all sources as they are now; those that are to be read are noted.
        """
        while self.position.pieces and self.position.ordinal in changed:
            self._end = self._replay(Position(self.position.ordinal))
        at = self.position.ordinal * STAMP_BYTES
        new = self.folder / NEW_SOURCES
        new.write_bytes((self.folder / SOURCES).read_bytes()[:at] + stamps[at:])
        new.replace(self.folder / SOURCES)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows, task by task."""
        yield from read_rows(self.folder)

    def close(self) -> None:
        """Let another process go on."""
        self._rows.close()
        self._journal.close()


def _open_locked(folder: Path) -> FileIO:
    """Return the journal of a folder, locked until it is closed."""
    journal = (folder / JOURNAL).open("r+b", buffering=0)
    try:
        fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Who held the lock may have removed the file meanwhile, and another may have made its own.
        if os.path.samestat(os.fstat(journal.fileno()), (folder / JOURNAL).stat()):
            return journal
    except OSError:
        pass
    journal.close()
    raise ServingError(f"another process is writing {folder}")


def remove(folder: Path) -> None:
    """Remove the files of a run, and the folder if nothing else lies there."""
    for name in OWN:
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def _line(end: int, data: bytes | memoryview, position: Position) -> bytes:
    place = f"{position.ordinal} {position.pieces}"
    return f"{end} {zlib.crc32(place.encode(), zlib.crc32(data)):08x} {place}\n".encode()


def _position(line: bytes) -> Position:
    ordinal, pieces = line.split()[2:]
    return Position(int(ordinal), int(pieces))


def read_rows(folder: Path) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a run, task by task."""
    with pa.OSFile(str(folder / ROWS)) as file:
        yield from pa.ipc.open_stream(file)


def check_job(folder: Path, job: dict[str, Any]) -> None:
    """Refuse to go on with a run of something else.

    Args:
        folder: of the run.
        job: as for `create`.

    Raises:
        ResumeRefused: says what differs.
    """
    before = read_job(folder)
    if before.pop("journal", 1) != LAYOUT:
        raise ResumeRefused(f"the run in {folder} is of another release: begin anew, without --resume")
    for name in sorted(before.keys() | job.keys()):
        if before.get(name) != job.get(name):
            raise ResumeRefused(f"{name} was {before.get(name)!r} in the unfinished run and is {job.get(name)!r} now")


def check_sources(folder: Path, stamps: bytes, changed: frozenset[int]) -> None:
    """Refuse to go on with other files.

    Args:
        folder: of the run.
        stamps: as for `create`.
        changed: sources that may have changed.

    Raises:
        ResumeRefused: says what differs.
    """
    old, new = (np.frombuffer(data, np.uint64) for data in ((folder / SOURCES).read_bytes(), stamps))
    if len(old) != len(new):
        raise ResumeRefused(f"the unfinished run had {len(old)} input files, now there are {len(new)}")
    different = [int(ordinal) for ordinal in np.flatnonzero(old != new) if int(ordinal) not in changed]
    if different:
        raise ResumeRefused(f"input file {different[0] + 1} of {len(new)} has changed since the unfinished run")


def read_job(folder: Path) -> dict[str, Any]:
    """Return what a run was about.

    Raises:
        ResumeRefused: there is no run.
    """
    try:
        job: dict[str, Any] = json.loads((folder / JOB).read_bytes())
    except (OSError, ValueError) as error:
        raise ResumeRefused(f"no unfinished run in {folder}") from error
    return job


class Retry:
    """The rows of an earlier run that stay, and the sources that are scored again.

    Args:
        folder: of the earlier run.
    """

    def __init__(self, folder: Path):
        self.failed = frozenset(
            ordinal
            for batch in read_rows(folder)
            if batch.column("error").null_count < batch.num_rows
            for ordinal in batch.filter(batch.column("error").is_valid()).column("ordinal").to_pylist()
        )
        lines = (folder / JOURNAL).read_bytes().splitlines()
        self._tasks = zip(read_rows(folder), map(_position, lines), strict=True)
        self._rest: tuple[pa.RecordBatch, Position] | None = None

    def kept_before(self, ordinal: float) -> Iterator[tuple[pa.RecordBatch, Position]]:
        """Yield the rows that stay of the sources before this one, and what is next; call it with growing ordinals."""
        while (task := self._rest or next(self._tasks, None)) is not None:
            batch, position = task
            ordinals = values_of(batch.column("ordinal"))
            count = int(np.searchsorted(ordinals, ordinal))
            stay = np.array([int(value) not in self.failed for value in ordinals[:count]], bool)
            self._rest = (batch.slice(count), position) if count < len(ordinals) else None
            if stay.any():
                kept = batch.slice(0, count).filter(booleans(stay))
                yield kept, Position(int(ordinal)) if self._rest else position
            if self._rest is not None:
                return
