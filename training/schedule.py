"""How long the steps are, over the course of a run.

Must not know: optimizers.
"""

import math


def one_cycle(step: int, steps: int, warm_up: float, final: float) -> float:
    """Return the share of the full learning rate for one step: up in a straight line, then down along a cosine.

    Args:
        step: 0 to `steps` - 1.
        steps: of the whole run, at least 1.
        warm_up: share of the run, in [0, 1), during which the rate rises.
        final: what the share falls towards, in [0, 1]; a step behind the last one would have it.

    Source: Smith, Topin 2018 ("super-convergence"), with the cosine of Loshchilov, Hutter 2017.
    """
    rising = warm_up * steps
    if step < rising:
        return (step + 1) / (rising + 1)
    progress = (step - rising) / max(steps - rising, 1)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))
