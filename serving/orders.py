"""Orders: what an administrator asked of one worker, for the others and for those that come after.

Must not know: models, transports.
"""

import fcntl
import json
from pathlib import Path

FILE_NAME, LOCK_NAME = "orders.json", "orders.lock"


class Orders:
    """A file in the private folder of the instance: how many orders were given, and what they come to.

    Args:
        folder: shared by the workers of one instance; None for a lone process without one.
    """

    def __init__(self, folder: Path | None):
        self._folder = folder
        self._seen = 0

    def give(self, name: str, *, unloaded: bool) -> None:
        """Tell the other workers whether a model shall be served, and to look at the repository again.

        What others have ordered meanwhile stands, and is still there to be taken.
        """
        if self._folder is None:
            return
        with (self._folder / LOCK_NAME).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            count, names = self._read()
            names = names | {name} if unloaded else names - {name}
            draft = self._folder / f"{FILE_NAME}.draft"
            draft.write_text(json.dumps({"count": count + 1, "unloaded": sorted(names)}), encoding="utf-8")
            draft.replace(self._folder / FILE_NAME)
        if count == self._seen:
            self._seen = count + 1

    @property
    def pending(self) -> bool:
        """Whether another worker has given orders since the last look."""
        return self._read()[0] != self._seen

    def take(self) -> set[str] | None:
        """Return the models that shall not be served, if another worker has given orders since the last look."""
        count, names = self._read()
        if count == self._seen:
            return None
        self._seen = count
        return names

    def _read(self) -> tuple[int, set[str]]:
        try:
            orders = json.loads((self._folder / FILE_NAME).read_bytes()) if self._folder else None
        except FileNotFoundError:
            orders = None
        return (orders["count"], set(orders["unloaded"])) if orders else (0, set())
