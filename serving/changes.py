"""Whether a file has changed since it was read.

Must not know: what it holds.
"""

from pathlib import Path
from typing import TypeAlias

FileState: TypeAlias = tuple[int, int, int, int] | None


def state_of(path: Path) -> FileState:
    """Return what changes with a file's content, also behind a link, as Kubernetes exchanges secrets; or None."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
