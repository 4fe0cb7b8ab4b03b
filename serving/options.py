"""What options of the commands are made of."""

import argparse
from collections.abc import Callable


def whole_from(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return the type of an option that takes whole numbers from `least` on, or to `most`."""
    expected = f"from {least} on" if most is None else f"from {least} to {most}"

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least or (most is not None and int(text) > most):
            raise argparse.ArgumentTypeError(f"expected a whole number {expected}, got {text!r}")
        return int(text)

    return read
