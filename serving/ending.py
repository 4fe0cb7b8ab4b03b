"""Ending: how the supervisor tells its workers that all of them stop, not one alone.

Must not know: how either stops.
"""

import contextlib
from pathlib import Path

FILE_NAME = "ending"


def announce_end(folder: Path) -> None:
    """Say, in the supervisor, that every worker will stop. `folder`: shared with the workers."""
    # Without the folder there are no workers yet.
    with contextlib.suppress(OSError):
        (folder / FILE_NAME).touch()


def everyone_ends(folder: Path | None) -> bool:
    """Return whether the end was announced; a lone process, without a folder, is everyone."""
    return folder is None or (folder / FILE_NAME).exists()
