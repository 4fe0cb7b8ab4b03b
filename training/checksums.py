"""SHA256SUMS: a list of every file of a model repository, as `sha256sum -c` reads it.

Must not know: what the files are.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

FILE_NAME = "SHA256SUMS"


def checksums(models: Path, arriving: Mapping[Path, Path] | None = None) -> str:
    """Return the SHA-256 and the path of each file, sorted by path; hidden ones and the list itself are left out.

    Args:
        models: the model repository.
        arriving: files that will be there: where each will lie, and where it lies now.
    """
    files = {path: path for path in models.rglob("*") if path.is_file()} | dict(arriving or {})
    now = {path.relative_to(models): source for path, source in files.items()}
    return "".join(
        f"{hashlib.sha256(now[path].read_bytes()).hexdigest()}  {path.as_posix()}\n"
        for path in sorted(filter(_is_listed, now))
    )


def is_complete(models: Path) -> bool:
    """Say whether the list names every file; what they hold is for `sha256sum -c` to see."""
    try:
        text = (models / FILE_NAME).read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    names = {line.partition("  ")[2] for line in text.splitlines()}
    paths = (path.relative_to(models) for path in models.rglob("*") if path.is_file())
    return all(path.as_posix() in names for path in paths if _is_listed(path))


def draft_checksums(models: Path, mode: int, arriving: Mapping[Path, Path] | None = None) -> Path:
    """Write a new list, hidden beside the old one and wholly on disk; return where it is.

    Args:
        models: the model repository.
        mode: permissions of the list.
        arriving: see `checksums`.
    """
    draft = models / f".{FILE_NAME}"
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(checksums(models, arriving))
            file.flush()
            os.fsync(file.fileno())
        draft.chmod(mode)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return draft


def write_checksums(models: Path, mode: int) -> None:
    """Make the list anew, by one rename."""
    draft_checksums(models, mode).replace(models / FILE_NAME)


def _is_listed(path: Path) -> bool:
    return path.name != FILE_NAME and not any(part.startswith(".") for part in path.parts)
