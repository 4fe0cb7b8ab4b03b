"""One run from inputs to output: survey, score, finish; resumed or retried where that is asked for.

Must not know: the command line, formats.
"""

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TextIO

import pyarrow as pa  # type: ignore[import-untyped]

from serving.errors import ServingError
from serving.offline.items import Task
from serving.offline.journal import JOB, Journal, ResumeRefused, Retry, check_same
from serving.offline.limits import ErrorLimit
from serving.offline.plan import Plan, ReadOptions
from serving.offline.progress import Progress
from serving.offline.sources import Inputs, Survey, survey
from serving.offline.summary import Summary
from serving.offline.writers import Form, write_output

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class Engine(Protocol):
    """Scores tasks, in order."""

    def __call__(self, tasks: Iterable[Task], /) -> Iterator[pa.RecordBatch]:
        """Yield the rows of each task."""
        ...


@dataclass(frozen=True)
class Job:
    """What to score, and how.

    Attributes:
        inputs: in order.
        read: how to read them.
        form: of the output.
        output: the file.
        identity: what else must be the same for a run to go on: the model.
        limit: of errors.
        resume: go on with an unfinished run if there is one.
        retry_failed: score again what failed in the last run.
    """

    inputs: Inputs
    read: ReadOptions
    form: Form
    output: Path
    identity: dict[str, Any]
    limit: ErrorLimit = field(default_factory=ErrorLimit)
    resume: bool = False
    retry_failed: bool = False

    def description(self) -> dict[str, Any]:
        """Return what makes this run what it is, as JSON's types."""
        return self.identity | {
            "format": self.form.format,
            "probabilities": self.form.probabilities,
            "fallback label": self.form.fallback_label,
            "scale": self.read.scale,
            "max pixels": self.read.max_pixels,
        }


@dataclass(frozen=True)
class Result:
    """What a run came to: its summary, the rows of an earlier run among them, the seconds of this one."""

    summary: Summary
    earlier_rows: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Rows of this run over its time, reading and writing included."""
        return (self.summary.rows - self.earlier_rows) / self.seconds


def partial_folder(output: Path) -> Path:
    """Return where a run keeps its rows until the output is complete, on the output's own file system."""
    return output.with_name(output.name + ".partial")


def run_job(job: Job, engine: Engine, stream: TextIO | None, clock: Callable[[], float] = time.monotonic) -> Result:
    """Score every input and write the output, which appears under its name when it is complete.

    Args:
        job: what to do.
        engine: scores tasks.
        stream: where progress goes, None to be quiet.
        clock: seconds, monotonic.

    Raises:
        ServingError: the run was stopped; what it did is kept for `resume`.
    """
    try:
        return _Run(job, engine, stream, clock).result()
    except OSError as error:
        if error.errno in DISK_FULL:
            text = f"no space left for {job.output}: what is scored is kept, free some space and add --resume"
            raise ServingError(text) from error
        raise ServingError(f"cannot write {job.output}: {error.strerror or error}") from error


class _Run:
    def __init__(self, job: Job, engine: Engine, stream: TextIO | None, clock: Callable[[], float]):
        self._job, self._engine, self._stream, self._clock = job, engine, stream, clock
        self._folder = partial_folder(job.output)
        self._start_s = clock()

    def result(self) -> Result:
        job = self._job
        self._check_output()
        surveyed = survey(job.inputs)
        journal = self._open_journal(surveyed)
        try:
            earlier_rows = journal.rows
            plan = Plan(job.inputs, job.read)
            self._score(journal, islice(plan, journal.tasks, None), lambda: plan.bytes_done, surveyed.total_bytes)
            if job.retry_failed and journal.errors:
                journal, earlier_rows = self._retry(journal, surveyed)
            summary = self._finish(journal)
        finally:
            journal.close()
        return Result(summary, earlier_rows, self._clock() - self._start_s)

    def _check_output(self) -> None:
        output = self._job.output
        if output.is_dir() or not output.absolute().parent.is_dir():
            raise ServingError(f"{output}: expected a file in a folder that exists")
        if any(Path(argument).absolute() == output.absolute() for argument in self._job.inputs.arguments):
            raise ServingError(f"{output} is an input")

    def _open_journal(self, surveyed: Survey) -> Journal:
        job, stamps = self._job, bytes(surveyed.stamps)
        unfinished = (self._folder / JOB).exists()
        if job.retry_failed and not unfinished:
            raise ResumeRefused(f"no run with errors to retry in {self._folder}")
        if not (job.resume or job.retry_failed) or not unfinished:
            return Journal.create(self._folder, job.description(), stamps)
        failed = Retry(self._folder).failed if job.retry_failed else frozenset()
        check_same(self._folder, job.description(), stamps, failed)
        return Journal(self._folder)

    def _score(self, journal: Journal, tasks: Iterable[Task], bytes_done: Callable[[], int], total_bytes: int) -> None:
        progress = Progress(self._stream, total_bytes, self._clock)
        progress.update(journal.rows, journal.errors, bytes_done())
        try:
            for batch in self._engine(tasks):
                journal.append(batch)
                self._job.limit.check(journal.errors, journal.rows, finished=False)
                progress.update(journal.rows, journal.errors, bytes_done())
        finally:
            progress.close()
        self._job.limit.check(journal.errors, journal.rows, finished=True)

    def _retry(self, old: Journal, surveyed: Survey) -> tuple[Journal, int]:
        """Replace the journal by one in which the failed sources are scored again; return it and the rows kept."""
        folder = self._folder.with_suffix(".retry")
        retry = Retry(self._folder)
        journal = Journal.create(folder, self._job.description(), bytes(surveyed.stamps))
        kept = 0
        for source in (source for source in self._job.inputs if source.ordinal in retry.failed):
            kept += self._keep(journal, retry.kept_before(source.ordinal))
            plan = Plan([source], self._job.read)
            for batch in self._engine(plan):
                journal.append(batch)
        kept += self._keep(journal, retry.kept_before(float("inf")))
        old.close()
        shutil.rmtree(self._folder)
        folder.rename(self._folder)
        journal.folder = self._folder
        return journal, kept

    def _keep(self, journal: Journal, batches: Iterable[pa.RecordBatch]) -> int:
        before = journal.rows
        for batch in batches:
            journal.append(batch)
        return journal.rows - before

    def _finish(self, journal: Journal) -> Summary:
        summary = Summary()
        complete = self._folder / "output"
        write_output(_counted(journal.batches(), summary), self._job.form, complete)
        complete.replace(self._job.output)
        _synchronise(self._job.output.absolute().parent)
        if not summary.errors:
            shutil.rmtree(self._folder)
        return summary


def _counted(batches: Iterable[pa.RecordBatch], summary: Summary) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        summary.add(batch)
        yield batch


def _synchronise(folder: Path) -> None:
    """Bring a rename to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
