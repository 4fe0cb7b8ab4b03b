"""What speaks against one digit, by the form of the ink alone.

Must not know: models, files, formats.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.preprocess.digit import Drawing
    from serving.preprocess.ink import Ink

SEVERAL_DIGITS, NOT_A_DIGIT = "several_digits", "not_a_digit"


def reasons_against(ink: "Ink", drawing: "Drawing") -> tuple[str, ...]:
    """Return the reasons: `several_digits`, `not_a_digit`."""
    del drawing
    return (SEVERAL_DIGITS,) if ink.strokes.others else ()
