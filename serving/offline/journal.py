"""The rows of a run as they come, in a folder beside the output, so that a killed run goes on where it was.

Must not know: input formats, output formats, the model.

`rows.arrows` is an Arrow stream; `journal` has a line for each task: the end of its rows in that stream, and their
CRC-32. What a line does not vouch for is cut off and scored again, so no write needs to reach the disk in time.
"""

import fcntl
import json
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]

from serving.errors import ServingError
from serving.offline.arrow import booleans, values_of
from serving.offline.rows import SCHEMA

JOB, SOURCES, ROWS, JOURNAL = "job.json", "sources", "rows.arrows", "journal"


class ResumeRefused(ServingError):
    """There is no unfinished run, or it was a run of something else."""


class Journal:
    """The rows that are safe so far; open in one process at a time.

    Args:
        folder: holds the files of `create`.

    Attributes:
        tasks: how many tasks are done.
        rows: how many rows they gave.
        errors: how many of these are errors.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.tasks = self.rows = self.errors = 0
        self._journal = (folder / JOURNAL).open("r+b", buffering=0)
        self._lock()
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
        """
        if (folder / JOURNAL).exists():
            cls(folder).close()  # refuses while another process is at work
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        (folder / SOURCES).write_bytes(stamps)
        (folder / ROWS).write_bytes(SCHEMA.serialize().to_pybytes())
        (folder / JOURNAL).touch()
        (folder / JOB).write_text(json.dumps(job, indent=1), encoding="utf-8")
        return cls(folder)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._journal.close()
            raise ServingError(f"another process is writing {self.folder}") from error

    def _replay(self) -> int:
        """Cut off what no line of the journal vouches for; return where the rows end."""
        end, kept = self._rows.seek(len(SCHEMA.serialize())), 0
        for line in self._journal.readall().splitlines(keepends=True):
            batch = self._vouched(line, end)
            if batch is None:
                break
            kept += len(line)
            end = self._rows.tell()
            self._count(batch)
        self._journal.truncate(kept)
        self._journal.seek(kept)
        self._rows.truncate(end)
        self._rows.seek(end)
        return end

    def _vouched(self, line: bytes, start: int) -> pa.RecordBatch | None:
        fields = line.split()
        if not line.endswith(b"\n") or len(fields) != 2 or not fields[0].isdigit():
            return None
        end = int(fields[0])
        if not start < end <= self._size:
            return None
        data = self._rows.read(end - start)
        if f"{start + len(data)} {zlib.crc32(data):08x}\n".encode() != line:
            return None
        return pa.ipc.read_record_batch(pa.py_buffer(data), SCHEMA)

    def _count(self, batch: pa.RecordBatch) -> None:
        self.tasks += 1
        self.rows += batch.num_rows
        self.errors += batch.num_rows - batch.column("error").null_count

    def append(self, batch: pa.RecordBatch) -> None:
        """Keep the rows of the next task.

        Raises:
            OSError: the disk is full.
        """
        data = memoryview(batch.serialize())
        checksum, size = zlib.crc32(data), len(data)
        while len(data):
            data = data[self._rows.write(data) :]
        self._end += size
        self._journal.write(f"{self._end} {checksum:08x}\n".encode())
        self._count(batch)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows, task by task."""
        yield from read_rows(self.folder)

    def close(self) -> None:
        """Let another process go on."""
        self._rows.close()
        self._journal.close()


def read_rows(folder: Path) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a run, task by task."""
    with pa.OSFile(str(folder / ROWS)) as file:
        yield from pa.ipc.open_stream(file)


def check_same(folder: Path, job: dict[str, Any], stamps: bytes, changed: frozenset[int] = frozenset()) -> None:
    """Refuse to go on with a run of something else.

    Args:
        folder: of the run.
        job: as for `create`.
        stamps: as for `create`.
        changed: sources that may have changed.

    Raises:
        ResumeRefused: says what differs.
    """
    before = read_job(folder)
    for name in sorted(before.keys() | job.keys()):
        if before.get(name) != job.get(name):
            raise ResumeRefused(f"{name} was {before.get(name)!r} in the unfinished run and is {job.get(name)!r} now")
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
        self._rows = read_rows(folder)
        self._rest: pa.RecordBatch | None = None

    def kept_before(self, ordinal: float) -> Iterator[pa.RecordBatch]:
        """Yield the rows that stay of the sources before this one; call it with growing ordinals."""
        while (batch := self._rest or next(self._rows, None)) is not None:
            ordinals = values_of(batch.column("ordinal"))
            count = int(np.searchsorted(ordinals, ordinal))
            stay = np.array([int(value) not in self.failed for value in ordinals[:count]], bool)
            self._rest = batch.slice(count) if count < len(ordinals) else None
            if stay.any():
                yield batch.slice(0, count).filter(booleans(stay))
            if self._rest is not None:
                return
