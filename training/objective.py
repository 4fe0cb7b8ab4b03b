"""What a network is asked to minimise.

Must not know: how it does so.
"""

from torch import Tensor
from torch.nn import functional as F

from training.recipe import Recipe


def objective(logits: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    """Return the loss of one batch, a scalar.

    Args:
        logits: float32 (N, 10).
        labels: int64 (N,), 0 to 9; negative for what is no digit, where the right answer is to be undecided.
        recipe: weighs the parts.

    Source: Szegedy et al. 2016 for label smoothing; Hendrycks, Mazeika, Dietterich 2019 for outlier exposure.
    """
    is_digit = labels >= 0
    loss = F.cross_entropy(logits[is_digit], labels[is_digit], label_smoothing=recipe.label_smoothing)
    if recipe.outlier_share and not is_digit.all():  # a small batch may hold none
        undecided = -F.log_softmax(logits[~is_digit], dim=1).mean()
        loss = loss + recipe.outlier_weight * undecided
    return loss
