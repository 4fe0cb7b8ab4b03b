"""Orders: what an administrator asked of one worker, for the others and for those that come after.

Must not know: models, transports.
"""

import json
import os
from pathlib import Path

FILE_NAME = "orders.json"


class Orders:
    """A file in the private folder of the instance.

    Args:
        folder: shared by the workers of one instance; None for a lone process without one.
    """

    def __init__(self, folder: Path | None):
        self._path = folder / FILE_NAME if folder else None
        self._seen = 0

    def give(self, unloaded: set[str]) -> None:
        """Tell the other workers which models shall not be served, and to look at the repository again."""
        if self._path is None:
            return
        draft = self._path.with_name(f"{FILE_NAME}.{os.getpid()}")
        draft.write_text(json.dumps(sorted(unloaded)), encoding="utf-8")
        draft.replace(self._path)
        self._seen = self._stamp()

    def take(self) -> set[str] | None:
        """Return the models that shall not be served, if another worker has given orders since the last look."""
        stamp = self._stamp()
        if self._path is None or stamp == self._seen:
            return None
        self._seen = stamp
        return set(json.loads(self._path.read_text(encoding="utf-8")))

    def _stamp(self) -> int:
        """Return what changes when the file is replaced; 0 without one."""
        try:
            return self._path.stat().st_mtime_ns if self._path else 0
        except FileNotFoundError:
            return 0
