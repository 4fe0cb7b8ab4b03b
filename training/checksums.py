"""SHA256SUMS: a list of every file of a model repository, as `sha256sum -c` reads it.

Must not know: what the files are.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

FILE_NAME = "SHA256SUMS"


def checksums(
    models: Path, arriving: Mapping[Path, Path] | None = None, listed: Mapping[str, str] | None = None
) -> str:
    """Return the SHA-256 and the path of each file, sorted by path; hidden ones and the list itself are left out.

    Args:
        models: the model repository.
        arriving: files that will be there: where each will lie, and where it lies now.
        listed: SHA-256 by path, which are believed of files that do not arrive.
    """
    coming = {path.relative_to(models): source for path, source in (arriving or {}).items()}
    files = {path.relative_to(models): path for path in models.rglob("*") if path.is_file()} | coming
    known = {path: digest for path, digest in (listed or {}).items() if Path(path) not in coming}
    return "".join(
        f"{known.get(path.as_posix()) or _sha256(files[path])}  {path.as_posix()}\n"
        for path in sorted(filter(_is_listed, files))
    )


def is_complete(models: Path) -> bool:
    """Say whether the list names every file; what they hold is for `sha256sum -c` to see."""
    names = _read(models)
    paths = (path.relative_to(models) for path in models.rglob("*") if path.is_file())
    return all(path.as_posix() in names for path in paths if _is_listed(path))


def draft_checksums(models: Path, mode: int, arriving: Mapping[Path, Path] | None = None) -> Path:
    """Write a new list, hidden beside the old one and wholly on disk; return where it is.

    What the old one says of a file that is still there stays, so that no publication vouches for one damaged since.

    Args:
        models: the model repository.
        mode: permissions of the list.
        arriving: see `checksums`.
    """
    draft = models / f".{FILE_NAME}"
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(checksums(models, arriving, _read(models)))
            file.flush()
            os.fsync(file.fileno())
        draft.chmod(mode)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return draft


def write_checksums(models: Path, mode: int, arriving: Mapping[Path, Path] | None = None) -> None:
    """List what is not listed yet, and no longer what is gone, by one rename; see `draft_checksums`."""
    draft_checksums(models, mode, arriving).replace(models / FILE_NAME)


def _read(models: Path) -> dict[str, str]:
    """Return the SHA-256 by path that the list holds, none without a list; a damaged line is for `sha256sum` to see."""
    try:
        text = (models / FILE_NAME).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}
    lines = (line.partition("  ") for line in text.splitlines())
    return {path: digest for digest, _, path in lines}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_listed(path: Path) -> bool:
    return path.name != FILE_NAME and not any(part.startswith(".") for part in path.parts)
