"""What options of the commands are made of."""

import argparse
from collections.abc import Callable

# Longer than anybody waits; sockets do not take every number.
LONGEST_S = 86_400.0


def whole_from(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return the type of an option that takes whole numbers from `least` on, or to `most`."""
    expected = f"from {least} on" if most is None else f"from {least} to {most}"

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least or (most is not None and int(text) > most):
            raise argparse.ArgumentTypeError(f"expected a whole number {expected}, got {text!r}")
        return int(text)

    return read


def seconds(text: str) -> float:
    """Read the time that an option gives: a finite number above 0, `LONGEST_S` at most."""
    try:
        given = float(text)
    except ValueError:
        given = 0.0
    if not 0 < given <= LONGEST_S:
        raise argparse.ArgumentTypeError(f"expected seconds, above 0 and up to {LONGEST_S:g}, got {text!r}")
    return given
