"""One run from inputs to output: survey, score, finish; resumed or retried where that is asked for.

Must not know: the command line, formats.
"""

import errno
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]

from serving.errors import ServingError
from serving.offline.arrow import values_of
from serving.offline.items import Task
from serving.offline.journal import (
    Journal,
    ResumeRefused,
    Retry,
    check_job,
    check_sources,
    remove,
)
from serving.offline.limits import ErrorLimit
from serving.offline.plan import Plan, ReadOptions
from serving.offline.progress import Progress
from serving.offline.run_folder import OUTPUT, is_unfinished
from serving.offline.sources import Inputs, Position, Survey, place_of, real, survey
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
        """Return what the rows of this run depend on, as JSON's types; any form of output can be made of them."""
        return self.identity | {"scale": self.read.scale, "max pixels": self.read.max_pixels}


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
    return output.parent / f"{output.name}.partial"


def own_places(output: Path, *others: Path) -> frozenset[Path]:
    """Return what a run writes, each as `place_of` gives it: no tree or glob takes it for an input.

    Args:
        output: the file, or a link to it.
        others: files that are written beside it.
    """
    folder = partial_folder(real(output))
    return frozenset(map(place_of, (output, real(output), folder, _retry_folder(folder), *others)))


def _retry_folder(folder: Path) -> Path:
    return folder.with_suffix(".retry")


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
        _check_output(job)
        # A link stays one, and what it leads to is written.
        return _Run(replace(job, output=real(job.output)), engine, stream, clock).result()
    except OSError as error:
        if error.errno in DISK_FULL:
            text = f"no space left for {job.output}: what is scored is kept, free some space and add --resume"
            raise ServingError(text) from error
        raise ServingError(f"cannot write {job.output}: {error.strerror or error}") from error


class _Run:
    def __init__(self, job: Job, engine: Engine, stream: TextIO | None, clock: Callable[[], float]):
        self._job, self._engine, self._stream, self._clock = job, engine, stream, clock
        self._folder = partial_folder(job.output)
        self._retry_folder = _retry_folder(self._folder)
        self._start_s = clock()

    def result(self) -> Result:
        job = self._job
        surveyed = survey(job.inputs)
        journal = self._open_journal(surveyed)
        try:
            self._prepare(journal, bytes(surveyed.stamps))
            earlier_rows = journal.rows
            self._complete(journal, surveyed.total_bytes)
            if job.retry_failed and journal.errors:
                journal, earlier_rows = self._retry(journal, surveyed)
            summary = self._finish(journal)
        finally:
            journal.close()
        return Result(summary, earlier_rows, self._clock() - self._start_s)

    def _open_journal(self, surveyed: Survey) -> Journal:
        job = self._job
        going_on = job.resume or job.retry_failed
        if going_on and not is_unfinished(self._folder) and is_unfinished(self._retry_folder):
            # A retry that was killed when it had scored all, and was taking the place of the run before it.
            found = Journal(self._retry_folder)
            self._put_in_place(found)
            found.close()
        unfinished = is_unfinished(self._folder)
        if job.retry_failed and not unfinished:
            raise ResumeRefused(f"no run with errors to retry in {self._folder}")
        if not going_on or not unfinished:
            return Journal.create(self._folder, job.description(), bytes(surveyed.stamps))
        check_job(self._folder, job.description())
        return Journal(self._folder)

    def _prepare(self, journal: Journal, stamps: bytes) -> None:
        failed = Retry(self._folder).failed if self._job.retry_failed else frozenset()
        check_sources(self._folder, stamps, failed)
        if failed:
            journal.forget_unfinished(failed, stamps)

    def _complete(self, journal: Journal, total_bytes: int) -> None:
        """Score what is not in the journal yet."""
        plan = Plan(self._job.inputs, self._job.read, journal.position)
        # A retry scores their sources once more, and counts what fails then.
        forgiven = journal.errors if self._job.retry_failed else 0
        progress = Progress(self._stream, total_bytes, self._clock)
        progress.update(journal.rows, journal.errors, plan.bytes_done)
        try:
            for batch, position in self._scored(plan):
                journal.append(batch, position)
                self._job.limit.check(journal.errors - forgiven, journal.rows, finished=False)
                progress.update(journal.rows, journal.errors, plan.bytes_done)
        finally:
            progress.close()
        self._job.limit.check(journal.errors - forgiven, journal.rows, finished=True)

    def _scored(self, plan: Plan) -> Iterator[tuple[pa.RecordBatch, Position]]:
        """Yield the rows of a plan, task by task, and where it goes on behind each."""
        positions: deque[Position] = deque()

        def noted() -> Iterator[Task]:
            for task in plan:
                positions.append(plan.position)
                yield task

        for batch in self._engine(noted()):
            yield batch, positions.popleft()

    def _retry(self, old: Journal, surveyed: Survey) -> tuple[Journal, int]:
        """Replace the journal by one in which the failed sources are scored again; return it and the rows kept."""
        journal = Journal.create(self._retry_folder, self._job.description(), bytes(surveyed.stamps))
        try:
            kept = self._score_failed(journal)
        except BaseException:
            journal.close()
            remove(self._retry_folder)
            raise
        self._put_in_place(journal)
        old.close()
        return journal, kept

    def _put_in_place(self, journal: Journal) -> None:
        """Let the journal of a retry take the place of the one before it."""
        remove(self._folder)
        journal.folder.rename(self._folder)
        journal.folder = self._folder

    def _score_failed(self, journal: Journal) -> int:
        retry, kept = Retry(self._folder), 0
        failed = (source for source in self._job.inputs if source.ordinal in retry.failed)
        for batch, position in self._scored(Plan(failed, self._job.read)):
            for ordinal, rows, behind in _by_source(batch, position):
                kept += self._keep(journal, retry.kept_before(ordinal))
                journal.append(rows, behind)
            self._job.limit.check(journal.errors, journal.rows, finished=False)
        kept += self._keep(journal, retry.kept_before(float("inf")))
        self._job.limit.check(journal.errors, journal.rows, finished=True)
        return kept

    def _keep(self, journal: Journal, tasks: Iterable[tuple[pa.RecordBatch, Position]]) -> int:
        before = journal.rows
        for batch, position in tasks:
            journal.append(batch, position)
        return journal.rows - before

    def _finish(self, journal: Journal) -> Summary:
        summary = Summary()
        complete = self._folder / OUTPUT
        write_output(_counted(journal.batches(), summary), self._job.form, complete)
        complete.replace(self._job.output)
        _synchronise(self._job.output.absolute().parent)
        remove(self._retry_folder)
        if not summary.errors:
            remove(self._folder)
        return summary


def _check_output(job: Job) -> None:
    output = job.output
    if output.is_dir() or not output.absolute().parent.is_dir():
        raise ServingError(f"{output}: expected a file in a folder that exists")
    if output.exists() and not output.is_file():
        raise ServingError(f"{output}: expected a regular file")
    if any(is_same(output, argument) for argument in job.inputs.arguments):
        raise ServingError(f"{output} is an input")


def is_same(output: Path, argument: str) -> bool:
    """Tell whether a file that would be written is the input that an argument names."""
    try:
        return output.samefile(argument)
    except (OSError, ValueError):  # one of them is not there
        return output == Path(argument)


def _counted(batches: Iterable[pa.RecordBatch], summary: Summary) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        summary.add(batch)
        yield batch


def _by_source(batch: pa.RecordBatch, position: Position) -> Iterator[tuple[int, pa.RecordBatch, Position]]:
    """Yield the rows of each source of a task, its ordinal, and where the plan goes on behind them."""
    ordinals = values_of(batch.column("ordinal"))
    ends = np.searchsorted(ordinals, found := np.unique(ordinals), side="right").tolist()
    for ordinal, (first, end) in zip(found.tolist(), pairwise([0, *ends]), strict=True):
        yield ordinal, batch.slice(first, end - first), position if end == len(ordinals) else Position(ordinal + 1)


def _synchronise(folder: Path) -> None:
    """Bring a rename to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
