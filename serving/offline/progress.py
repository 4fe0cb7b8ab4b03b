"""How far a run is: one line that is written again on a terminal, a line now and then elsewhere.

Must not know: what is counted.
"""

import os
import shutil
from collections.abc import Callable
from typing import TextIO

# Often enough to look alive, seldom enough to cost nothing and to keep a log short.
TERMINAL_S, LOG_S = 0.1, 5.0
BAR_CHARACTERS = 24


def say(text: str, stream: TextIO) -> bool:
    """Write a text, and tell whether that could be: who reads it may be gone, or the disk full, and the rows go on."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        # The interpreter would write the rest at its end, in vain again, and change the exit code.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return False
    return True


class Progress:
    """Reports rows, rate and time left.

    Args:
        stream: standard error, or None to be quiet.
        total_bytes: of the input.
        clock: seconds, monotonic.
    """

    def __init__(self, stream: TextIO | None, total_bytes: int, clock: Callable[[], float]):
        self._stream, self._total_bytes, self._clock = stream, total_bytes, clock
        self._terminal = stream is not None and stream.isatty()
        self._start_s = self._shown_s = clock()
        self._start_rows: int | None = None
        self._start_bytes = 0

    def update(self, rows: int, errors: int, bytes_done: int) -> None:
        """Report, if it is time to.

        Args:
            rows: done so far, those of an earlier run included.
            errors: among them.
            bytes_done: of the input.
        """
        now = self._clock()
        if self._start_rows is None:
            self._start_rows, self._start_bytes = rows, bytes_done
        if self._stream is None or now - self._shown_s < (TERMINAL_S if self._terminal else LOG_S):
            return
        self._shown_s = now
        line = self._line(rows, errors, bytes_done, now - self._start_s)
        # A line that is wrapped could not be written again.
        shown = line[: shutil.get_terminal_size().columns - 1]
        self._write(f"\r\x1b[K{shown}" if self._terminal else f"{line}\n")

    def _write(self, text: str) -> None:
        if self._stream is not None and not say(text, self._stream):
            self._stream = None

    def _line(self, rows: int, errors: int, bytes_done: int, elapsed_s: float) -> str:
        share = min(1.0, bytes_done / self._total_bytes) if self._total_bytes else 0.0
        speed = (bytes_done - self._start_bytes) / elapsed_s
        left_s = round(max(0, self._total_bytes - bytes_done) / speed) if speed > 0 else None
        filled = round(share * BAR_CHARACTERS)
        left = "" if left_s is None else f", {left_s // 60}:{left_s % 60:02} left"
        bad = f", {errors:,} errors" if errors else ""
        rate = (rows - (self._start_rows or 0)) / elapsed_s
        return f"{share:4.0%} {'#' * filled}{'.' * (BAR_CHARACTERS - filled)} {rows:,} rows, {rate:,.0f}/s{left}{bad}"

    def close(self) -> None:
        """Remove the line from a terminal."""
        if self._terminal:
            self._write("\r\x1b[K")
