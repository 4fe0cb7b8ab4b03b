"""The running mean of a network's weights, which reads better than any of the weights it is made of.

Must not know: optimizers, data.
"""

from copy import deepcopy

import torch
from torch import nn

# The mean follows fast at first: after n steps at least n / (n + 10) of it is younger than the run's beginning.
SPEED_UP_STEPS = 10


class Average:
    """An exponential moving average of weights and of batch norm's statistics.

    Args:
        model: the network to follow.
        decay: share of the mean that each step keeps, in (0, 1).

    Source: Polyak, Juditsky 1992; the decay's ramp as in TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model = deepcopy(model).eval().requires_grad_(False)
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take one step towards the weights of `model`."""
        decay = min(self.decay, (1 + self.steps) / (SPEED_UP_STEPS + self.steps))
        self.steps += 1
        mean, new = self.model.state_dict(), model.state_dict()
        moving = [name for name, tensor in mean.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([mean[name] for name in moving], [new[name] for name in moving], 1 - decay)
