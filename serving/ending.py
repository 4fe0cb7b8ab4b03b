"""Ending: how the supervisor tells its workers that all of them stop, not one alone; signals that come too early.

Must not know: how either stops.
"""

import contextlib
import signal
from pathlib import Path

FILE_NAME = "ending"

SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


def hold_signals(numbers: frozenset[signal.Signals] = SIGNALS) -> None:
    """Have signals wait until `let_signals_in`, also for the program that this process becomes and those it starts.

    Without a handler they would end it as if it had failed; the first process of a container would never get them.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)


def let_signals_in(numbers: frozenset[signal.Signals] = SIGNALS) -> None:
    """Take the signals that wait, and those to come: there are handlers now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


def announce_end(folder: Path) -> None:
    """Say, in the supervisor, that every worker will stop. `folder`: shared with the workers."""
    # Without the folder there are no workers yet.
    with contextlib.suppress(OSError):
        (folder / FILE_NAME).touch()


def everyone_ends(folder: Path | None) -> bool:
    """Return whether the end was announced; a lone process, without a folder, is everyone."""
    return folder is None or (folder / FILE_NAME).exists()
