"""SHA256SUMS: a list of every file of a model repository, as `sha256sum -c` reads it.

Must not know: what the files are.
"""

import hashlib
from pathlib import Path

FILE_NAME = "SHA256SUMS"


def checksums(models: Path) -> str:
    """Return the SHA-256 and the path of each file, sorted by path; hidden ones and the list itself are left out."""
    paths = sorted(path.relative_to(models) for path in models.rglob("*") if path.is_file())
    listed = [path for path in paths if path.name != FILE_NAME and not any(part.startswith(".") for part in path.parts)]
    return "".join(
        f"{hashlib.sha256((models / path).read_bytes()).hexdigest()}  {path.as_posix()}\n" for path in listed
    )


def write_checksums(models: Path, mode: int) -> None:
    """Make the list anew, by one rename."""
    draft = models / f".{FILE_NAME}"
    draft.write_text(checksums(models), encoding="utf-8")
    draft.chmod(mode)
    draft.replace(models / FILE_NAME)
