"""When a prediction counts as known: one rule.

Must not know: models, transports.
"""

from collections.abc import Sequence

from serving.manifest import Acceptance
from serving.reasons import LOW_CONFIDENCE


def judge(confidence: float, reasons: Sequence[str], acceptance: Acceptance) -> tuple[bool, list[str]]:
    """Return whether a prediction is accepted, and every reason against it.

    Args:
        confidence: probability of the predicted digit, 0 to 1.
        reasons: what the preprocessing found to be wrong with the picture.
        acceptance: the model's threshold.
    """
    against = list(reasons)
    if confidence < acceptance.min_confidence:
        against.append(LOW_CONFIDENCE)
    return not against, against
