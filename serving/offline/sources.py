"""Files named by the caller: single ones, globs, folder trees, lists; in a fixed order.

Must not know: what the files hold.
"""

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from serving.offline.arrays import labels_path
from serving.offline.items import NO_LABEL
from serving.offline.run_folder import is_unfinished

# A path, the label of its folder or -1, and why it cannot be read.
Found = tuple[Path, int, str | None]

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WILD = frozenset("*?[")
STAMP_BYTES = 8
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True, slots=True)
class Source:
    """One file, or one place where there should be one.

    Attributes:
        ordinal: its number in the order of the input, from 0.
        path: as the caller named it, or the folder it was found in.
        label: what the folder it lies in says, or -1.
        error: why it cannot be read at all.
    """

    ordinal: int
    path: Path
    label: int = NO_LABEL
    error: str | None = None


class Position(NamedTuple):
    """How far the sources have been read: those before `ordinal`, and so many pieces of that one."""

    ordinal: int = 0
    pieces: int = 0


@dataclass(frozen=True)
class FolderLabels:
    """The digit that a folder's name stands for: the model's label, or the word; never the folder's position."""

    labels: Sequence[str]

    def of(self, folder: str) -> int:
        """Return the digit, or -1 for any other name."""
        name = folder.lower()
        for names in (self.labels, NUMBER_WORDS):
            if name in names:
                return list(names).index(name)
        return NO_LABEL


@dataclass(frozen=True)
class Inputs:
    """Every source that the arguments name; iterate as often as needed.

    Hidden files and folders are not looked at, nor are a file of labels beside the images it belongs to and the folder
    of a run, unless it is named itself; a glob that names a hidden one finds it, and what lies in a folder that matches
    is found once.

    Attributes:
        arguments: files, folders and globs.
        folder_labels: what the folders of a tree stand for.
        excluded: what trees and globs leave out, each as `place_of` gives it: the output and what belongs to it.
    """

    arguments: Sequence[str]
    folder_labels: FolderLabels
    excluded: frozenset[Path] = field(default_factory=frozenset)

    def __iter__(self) -> Iterator[Source]:
        for ordinal, (path, label, error) in enumerate(self._all()):
            yield Source(ordinal, path, label, error)

    def _all(self) -> Iterator[Found]:
        for argument in self.arguments:
            path = Path(argument)
            if WILD & set(argument) and not os.path.lexists(path):
                found = self._glob(path)
            else:
                found = self._path(path, path, ())
            first = next(found, (path, NO_LABEL, "a folder without files"))
            yield first
            yield from found

    def _glob(self, pattern: Path) -> Iterator[Found]:
        fixed = list(takewhile(lambda part: not WILD & set(part), pattern.parts))
        root, wild = Path(*fixed), pattern.parts[len(fixed) :]
        try:
            found = set(root.glob(str(Path(*wild))))
        except OSError as error:
            yield pattern, NO_LABEL, _reason(root, error)
            return
        except ValueError as error:
            yield pattern, NO_LABEL, str(error).lower()
            return
        if not any(map(_is_hidden, wild)):
            found = {path for path in found if not any(map(_is_hidden, path.relative_to(root).parts))}
        found -= {labels_path(path) for path in found if path.name and labels_path(path) != path}
        own_names = {own.name for own in self.excluded}
        matches = [path for path in _outermost(sorted(found)) if not self._is_excluded(path, own_names)]
        if not matches:
            yield pattern, NO_LABEL, _why_nothing(root)
        for match in matches:
            yield from self._path(match, root, ())

    def _is_excluded(self, path: Path, own_names: set[str]) -> bool:
        return any(part.name in own_names and place_of(part) in self.excluded for part in (path, *path.parents))

    def _path(self, path: Path, root: Path, above: tuple[Path, ...]) -> Iterator[Found]:
        """Yield a file or a tree below `root`; `above` are the folders that led here, links resolved."""
        try:
            if path.is_dir():
                yield from self._tree(path, root, above)
            else:
                path.stat()
                yield path, self._label(path, root), None
        except (OSError, ValueError) as error:
            yield path, NO_LABEL, _reason(path, error)

    def _tree(self, folder: Path, root: Path, above: tuple[Path, ...]) -> Iterator[Found]:
        resolved = folder.resolve()
        if resolved in above:
            yield folder, NO_LABEL, "a link to a folder that it lies in"
            return
        if folder != root and is_unfinished(folder):
            return
        entries = {entry.name: entry for entry in folder.iterdir() if not entry.name.startswith(".")}
        if not entries and folder.suffix.lower() in PICTURE_SUFFIXES:
            yield folder, NO_LABEL, "an empty folder with the name of a picture"
        labels = {labels_path(entry).name for entry in entries.values() if labels_path(entry) != entry}
        for name in sorted(entries.keys() - labels):
            if resolved / name not in self.excluded:
                yield from self._path(entries[name], root, (*above, resolved))

    def _label(self, path: Path, root: Path) -> int:
        """Return the label of the folder that a file lies in, if that folder was found and not named by the caller."""
        return NO_LABEL if root in {path, path.parent} else self.folder_labels.of(path.parent.name)


def place_of(path: Path) -> Path:
    """Return where a name stands, however its folder is spelled; a link is not followed."""
    return real(path.parent) / path.name


def real(path: Path) -> Path:
    """Return a path without links; where they go in a circle, Path.resolve raises."""
    return Path(os.path.realpath(path))


def _is_hidden(part: str) -> bool:
    return part.startswith(".") and part != ".."


def _outermost(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield sorted paths without those below a folder among them."""
    folder: Path | None = None
    for path in paths:
        if folder is None or not path.is_relative_to(folder):
            yield path
            if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where it may not look
                folder = path


def _why_nothing(root: Path) -> str:
    """Say why no file below a folder matches: from Python 3.13 on, `glob` does not tell of one that may not be read."""
    try:
        root.stat()
        os.scandir(root).close()
    except PermissionError as error:
        return _reason(root, error)
    except OSError:
        pass
    return "no file matches"


def _reason(path: Path, error: OSError | ValueError) -> str:
    """Return why there is nothing at a path."""
    number = error.errno if isinstance(error, OSError) else errno.ENOENT
    if number in {errno.ENOENT, errno.ELOOP} and os.path.islink(path):  # noqa: PTH114 - nor may this raise
        return "a link that leads nowhere"
    if number in {errno.ENOENT, errno.ENOTDIR}:
        return "no such file or folder"
    return (os.strerror(number) if number else "unreadable").lower()


@dataclass
class Survey:
    """One look at every source before the work begins.

    Attributes:
        stamps: STAMP_BYTES for each source: a digest of path, size and time of change, and of the labels beside it.
        total_bytes: of all files.
    """

    stamps: bytearray = field(default_factory=bytearray)
    total_bytes: int = 0


def survey(inputs: Inputs) -> Survey:
    """Return sizes and stamps of every source."""
    result = Survey()
    for source in inputs:
        result.total_bytes += size_of(source)
        result.stamps += _stamp(source)
    return result


def size_of(source: Source) -> int:
    """Return the size of a source in bytes, 0 where there is none."""
    try:
        return 0 if source.error else source.path.stat().st_size
    except OSError:
        return 0


def _stamp(source: Source) -> bytes:
    parts = [str(source.path), str(source.label)]
    beside = labels_path(source.path) if source.path.name else source.path
    for path in dict.fromkeys((source.path, beside)):
        try:
            status = path.stat()
            parts.append(f"{status.st_size} {status.st_mtime_ns}")
        except (OSError, ValueError):
            parts.append("none")
    return hashlib.blake2b("\n".join(parts).encode("utf-8", "surrogateescape"), digest_size=STAMP_BYTES).digest()
