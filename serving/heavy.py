"""Heavy work beside the event loop, a piece at a time: who asks for much waits for others who do, and nobody else.

With a thread for each, compressed bodies of 33 MB on eight connections took all cores: p99 went from 50 ms to 1.4 s.
Must not know: what the work is.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

# Of a body that is worked on at a time: others have the interpreter between two pieces.
PIECE_BYTES = 262_144

# How often as long as it worked a desk rests.
RESTS = 2

# The longest rest between two pieces of work.
MAX_REST_S = 0.1


class Desk:
    """One thread, which between two pieces of work rests twice as long as the first took.

    Without the rest, large JSON bodies on four connections kept the interpreter from pictures in other threads: their
    median went from 6 to 37 ms, with it to 10. Of the largest tensors as JSON others' p99 became 3.9 times the quiet
    one where it rested as long as it had worked, and 3.1 times with this.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "heavy")
        self._free_at = 0.0

    async def run(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, once the work before it is done."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._piece, work)

    def _piece(self, work: Callable[[], T]) -> T:
        started = time.monotonic()
        if started < self._free_at:
            time.sleep(self._free_at - started)
            started = time.monotonic()
        try:
            return work()
        finally:
            ended = time.monotonic()
            self._free_at = ended + min(RESTS * (ended - started), MAX_REST_S)


alone = Desk().run
