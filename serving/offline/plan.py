"""From sources to tasks: each file by the reader of its kind, pictures gathered into batches.

Must not know: the model, the output.
"""

import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]

from serving.errors import InvalidInput
from serving.offline.archives import Member, Metered, open_zip, read_member, tar_members, zip_members
from serving.offline.arrays import idx_tasks, labels_path, npy_tasks, read_idx_header
from serving.offline.csv_rows import csv_tasks
from serving.offline.items import NO_LABEL, Place, Task
from serving.offline.npz import is_npz, npz_arrays
from serving.offline.pictures import PICTURE_BYTES, Entries, Entry
from serving.offline.pixels import Numbers, Scale
from serving.offline.sniff import UNREAD, Compressed, Kind, Table
from serving.offline.sources import FolderLabels, Position, Source, size_of
from serving.offline.streams import BROKEN, Readable, Rewound, decompress, describe_failure, look, read_whole
from serving.offline.table_files import arrow_batches, parquet_batches
from serving.offline.tables import table_pieces

# Pictures of one task: the model runs them as one batch.
PICTURES = 32

# Fewer of them where they come out of an archive, and so wait in memory, and are large; a dozen tasks wait at a time.
WAITING_BYTES = 16 << 20

# What a reader may raise for what a file holds.
UNREADABLE = (InvalidInput, tarfile.TarError, pa.ArrowException, *BROKEN)


@dataclass(frozen=True)
class ReadOptions:
    """How to read: the scale of numbers, the pixels of a picture, what folders stand for."""

    scale: Scale
    max_pixels: int
    folder_labels: FolderLabels


class Plan:
    """The tasks of some sources, in order; iterate once.

    Args:
        sources: in order.
        options: how to read them.
        start: what comes before it is not yielded; by default nothing does.

    Attributes:
        position: where to go on behind the last task that was yielded.
    """

    def __init__(self, sources: Iterable[Source], options: ReadOptions, start: Position | None = None):
        self._sources, self._options = sources, options
        self.position = self._start = start or Position()
        self._finished_bytes = 0
        self._position: Callable[[], int] = int

    @property
    def bytes_done(self) -> int:
        """Bytes of the files that have been read so far."""
        return self._finished_bytes + self._position()

    def __iter__(self) -> Iterator[Task]:
        waiting: list[Entry] = []
        waiting_bytes, behind = 0, self.position
        for piece, position in self._pieces():
            if isinstance(piece, Entry):
                waiting.append(piece)
                waiting_bytes += piece.held_bytes
                behind = position
            is_full = len(waiting) == PICTURES or waiting_bytes >= WAITING_BYTES
            if waiting and (is_full or not isinstance(piece, Entry)):
                self.position = behind
                yield Entries(tuple(waiting), self._options.max_pixels)
                waiting, waiting_bytes = [], 0
            if not isinstance(piece, Entry):
                self.position = position
                yield piece
        if waiting:
            self.position = behind
            yield Entries(tuple(waiting), self._options.max_pixels)

    def _pieces(self) -> Iterator[tuple[Entry | Task, Position]]:
        """Yield what the sources hold, each piece with the position behind it."""
        for source in self._sources:
            if source.ordinal >= self._start.ordinal:
                yield from self._read(source)
            self._position = int
            self._finished_bytes += size_of(source)

    def _read(self, source: Source) -> Iterator[tuple[Entry | Task, Position]]:
        place = Place(source.ordinal, _as_text(source.path))
        done = self._start.pieces if source.ordinal == self._start.ordinal else 0
        try:
            for number, piece in enumerate(self._read_file(source, place), 1):
                if number > done:
                    yield piece, Position(source.ordinal, number)
        except UNREADABLE as error:
            # It is done with, however much of it can be read the next time; and it is closed, so has no place to tell.
            self._position = partial(size_of, source)
            yield _failure(error, place, "", source.label), Position(source.ordinal + 1)

    def _guarded(self, pieces: Iterator[Entry | Task], place: Place, name: str, label: int) -> Iterator[Entry | Task]:
        """Yield the pieces, and what stopped them as an item of its own."""
        try:
            yield from pieces
        except UNREADABLE as error:
            yield _failure(error, place, name, label)

    def _read_file(self, source: Source, place: Place) -> Iterator[Entry | Task]:
        if source.error:
            raise InvalidInput(source.error)
        if not stat.S_ISREG(source.path.stat().st_mode):
            raise InvalidInput("no regular file")
        with ExitStack() as stack:
            file = stack.enter_context(source.path.open("rb"))
            self._position = file.tell
            kind, stream = look(file)
            compressed = kind in get_args(Compressed)
            if compressed:
                stack.enter_context(unpacked := decompress(kind, stream))
                kind, stream = look(Metered(unpacked, size_of(source)))
            if kind == "tar":
                for member in tar_members(stream):
                    yield from self._read_member(member, place)
            elif kind == "zip" and not compressed:
                yield from self._read_zip(source.path, place)
            elif kind == "picture" and not compressed:
                yield Entry(place.ordinal, place.source, "", source.label, source.path.absolute())
            elif kind in get_args(Table) and not compressed:
                yield from self._read_table(source.path, kind, place)
            else:
                labels = _labels_beside(source.path, stream) if kind == "idx" else None
                yield from self._read_stream(kind, stream, place, source.label, labels)

    def _read_zip(self, path: Path, place: Place) -> Iterator[Entry | Task]:
        with open_zip(path) as archive:
            self._position = archive.fp.tell if archive.fp else int
            if is_npz(archive):
                for name, tasks in npz_arrays(archive, place, self._options.scale):
                    yield from self._guarded(tasks, place, name, NO_LABEL)
                return
            for member in zip_members(archive):
                yield from self._read_member(member, place)

    def _read_member(self, member: Member, place: Place) -> Iterator[Entry | Task]:
        name = _as_text(member.name)
        label = self._options.folder_labels.of(Path(name).parent.name)
        for piece in self._guarded(self._read_open_member(member, place, label), place, name, label):
            yield replace(piece, name=name) if isinstance(piece, Entry) else piece

    def _read_open_member(self, member: Member, place: Place, label: int) -> Iterator[Entry | Task]:
        if member.error:
            raise InvalidInput(member.error)
        kind, stream = look(member.stream)
        inner = replace(place, prefix=f"{_as_text(member.name)}/")
        yield from self._read_stream(kind, stream, inner, label, None)

    def _read_stream(
        self, kind: Kind, stream: Readable, place: Place, label: int, labels: Numbers | None
    ) -> Iterator[Entry | Task]:
        """Yield what a stream holds that can be read from beginning to end."""
        if kind == "idx":
            yield from idx_tasks(stream, place, self._options.scale, labels)
        elif kind == "npy":
            yield from npy_tasks(stream, place, self._options.scale)
        elif kind == "text":
            yield from csv_tasks(stream, place, self._options.scale)
        elif kind == "picture":
            yield Entry(place.ordinal, place.source, "", label, read_member(stream, PICTURE_BYTES))
        elif kind == "empty":
            raise InvalidInput("empty")
        elif kind in UNREAD:
            raise InvalidInput(UNREAD[kind])
        else:
            raise InvalidInput(f"a {kind.replace('_', ' ')} inside an archive is not read: unpack it first")

    def _read_table(self, path: Path, kind: Kind, place: Place) -> Iterator[Entry | Task]:
        batches = parquet_batches(path) if kind == "parquet" else arrow_batches(path, kind)
        counted = self._positioned(batches, path.stat().st_size)
        yield from table_pieces(counted, place, self._options.scale)

    def _positioned(self, batches: Iterator[tuple[pa.RecordBatch, float]], size_bytes: int) -> Iterator[pa.RecordBatch]:
        for batch, share in batches:
            self._position = partial(round, share * size_bytes)
            yield batch


def _failure(error: Exception, place: Place, name: str, label: int) -> Entry:
    return Entry(place.ordinal, place.source, name, label, error=_describe(error))


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, InvalidInput) else describe_failure(error)


def _labels_beside(path: Path, images: Rewound) -> Numbers | None:
    """Return the labels that lie beside a file of IDX images under MNIST's own name, or None."""
    beside = labels_path(path)
    if beside == path or not beside.is_file():
        return None
    try:
        return _read_labels(beside, int.from_bytes(images.head[4:8], "big"))
    except UNREADABLE as error:
        raise InvalidInput(f"{beside.name} beside it: {_describe(error)}") from error


def _read_labels(path: Path, images: int) -> Numbers:
    with path.open("rb") as file:
        kind, stream = look(file)
        if kind in get_args(Compressed):
            kind, stream = look(Metered(decompress(kind, stream), path.stat().st_size))
        if kind != "idx":
            raise InvalidInput("an IDX file of labels was expected")
        dtype, shape = read_idx_header(stream)
        if len(shape) != 1:
            raise InvalidInput(f"labels were expected, found an array of {len(shape)} axes")
        if shape[0] != images:
            raise InvalidInput(f"{images} images, but {shape[0]} labels")
        return np.frombuffer(read_whole(stream, images * dtype.itemsize), dtype)


def _as_text(path: Path | str) -> str:
    """Return a path as text that every output can hold, whatever bytes the file system has in it."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
