"""Why a picture's prediction is not accepted, by the names that callers, rows and metrics see.

Must not know: who finds them.
"""

BLANK = "blank"
SEVERAL_DIGITS = "several_digits"
NOT_A_DIGIT = "not_a_digit"
LOW_CONFIDENCE = "low_confidence"

REASONS = (BLANK, SEVERAL_DIGITS, NOT_A_DIGIT, LOW_CONFIDENCE)
