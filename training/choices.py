"""What is chosen after training: the temperature and the threshold, on held-back training images alone.

Must not know: the test set.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from serving.manifest import Acceptance
from training.calibration import fit_temperature
from training.checkpoint import Checkpoint
from training.errors import NotNumbers
from training.evaluate import predictor
from training.mnist import Mnist, split
from training.record import DEFAULT_ACCEPTANCE
from training.selective import choose_threshold
from training.verify import Digits

# Asked of the accepted answers: one error in a thousand.
MAX_ERROR = 0.001
# Real digits worth losing for the sake of fewer errors. The service promises to read 99 %; a quantile of 5,000 digits
# and a share of 10,000 others differ by 0.15 % (standard deviation) by chance alone, and this leaves room for two.
MAX_REFUSED = 0.007
_BATCH_SIZE = 1000


@dataclass(frozen=True)
class Choices:
    """What a checkpoint is exported and published with."""

    temperature: float = 1.0
    acceptance: Acceptance = DEFAULT_ACCEPTANCE


def choose(checkpoint: Checkpoint, data: Mnist) -> Choices:
    """Fit the temperature and choose the threshold on the checkpoint's validation images; without any, keep defaults.

    The threshold is the lowest that keeps the error among accepted within MAX_ERROR, unless that would refuse more
    than MAX_REFUSED of the digits; then it is the confidence below which at most that share of them lies.

    Raises:
        NotNumbers: a logit is infinite or not a number.
    """
    digits = validation_digits(checkpoint, data)
    if digits is None:
        return Choices()
    predict = predictor(checkpoint.model())
    starts = range(0, len(digits.images), _BATCH_SIZE)
    logits = np.concatenate([predict(digits.images[start : start + _BATCH_SIZE]) for start in starts])
    if broken := int((~np.isfinite(logits)).any(axis=1).sum()):
        raise NotNumbers(f"{broken} of {len(logits)} validation images have logits that are not finite numbers")
    temperature = fit_temperature(logits, digits.labels)
    probabilities = softmax(logits.astype(np.float64) / temperature, axis=1)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == digits.labels
    ceiling = float(np.quantile(confidence, MAX_REFUSED, method="lower"))
    threshold = min(choose_threshold(confidence, right, max_error=MAX_ERROR), ceiling)
    return Choices(temperature, Acceptance(min_confidence=threshold, chosen_on="validation"))


def validation_digits(checkpoint: Checkpoint, data: Mnist) -> Digits | None:
    """Return the training images that the checkpoint's recipe held back, or None if it held back none."""
    size = checkpoint.recipe.validation_size
    if not size:
        return None
    chosen = split(data.train_labels, size).validation
    return Digits(data.train_images[chosen].numpy(), data.train_labels[chosen].numpy())
