"""The folder of an instance's metrics: held while it lives, and removed when it ends, however it ends.

Must not know: what lies in it.
"""

import atexit
import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
from pathlib import Path

PREFIX = "mnist-reader-metrics-"


def new_folder() -> Path:
    """Return where the folder of this instance is to be."""
    return Path(tempfile.gettempdir()) / f"{PREFIX}{secrets.token_hex(8)}"


def hold(folder: Path) -> None:
    """Hold a folder until this process ends, and remove it then; remove also what killed instances left beside it.

    An instance that is killed, for its memory, leaves 2 MB. Where the folder for temporary files outlives it, in a pod
    that restarts its container, they would add up.

    Args:
        folder: empty.
    """
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        _lock(folder)
    for other in folder.parent.glob(f"{PREFIX}*"):
        # One that is empty may be of an instance that is about to hold it.
        with contextlib.suppress(OSError):
            if other.lstat().st_uid == os.geteuid() and any(other.iterdir()):
                descriptor = _lock(other)
                shutil.rmtree(other, ignore_errors=True)
                os.close(descriptor)


def _lock(folder: Path) -> int:
    """Return a descriptor that holds the folder until it is closed.

    Raises:
        OSError: somebody holds it, or it is none.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
