"""What a run learns from: MNIST's images, and the pictures that its recipe has drawn beside them.

Must not know: networks, losses.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.recipe import Recipe

NO_DIGIT = -1
"""The label of a picture that is no digit."""


@dataclass(frozen=True)
class Material:
    """Digits and, apart from them, what is no digit; all on one device."""

    images: Tensor
    """uint8 (N, 28, 28)"""
    labels: Tensor
    """int64 (N,), 0 to 9"""
    outliers: Tensor
    """uint8 (M, 28, 28)"""

    def batch(self, chosen: Tensor, outlier_share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the chosen digits, and after them as many random outliers as the share asks for.

        Args:
            chosen: int64 (B,), indices of digits.
            outlier_share: outliers per digit, >= 0.
            generator: decides which outliers; on the device of the images.

        Returns:
            Images uint8 (B + O, 28, 28), labels int64 (B + O,), NO_DIGIT for outliers.
        """
        count = round(len(chosen) * outlier_share)
        images, labels = self.images[chosen], self.labels[chosen]
        if not count:
            return images, labels
        drawn = torch.randint(len(self.outliers), (count,), generator=generator, device=generator.device)
        return torch.cat([images, self.outliers[drawn]]), torch.cat([labels, labels.new_full((count,), NO_DIGIT)])


def gather(recipe: Recipe, images: Tensor, labels: Tensor, seed: int, device: str) -> Material:
    """Draw what the recipe asks for and put it beside MNIST's images.

    Args:
        recipe: says how many redrawn digits, printed digits and outliers.
        images: uint8 (N, 28, 28), those of the training split.
        labels: int64 (N,).
        seed: decides what is drawn.
        device: where the material shall lie.
    """
    parts, answers = [images], [labels]
    outliers = images[:0]
    if recipe.redrawn_digits or recipe.printed_digits or recipe.outliers:
        from training import pictures  # matplotlib and OpenCV: a second that the tutorial's recipe need not wait

        rng = np.random.default_rng(seed)
        chosen = torch.from_numpy(rng.choice(len(images), recipe.redrawn_digits, replace=False))
        printed, digits = pictures.printed_digits(recipe.printed_digits, rng)
        parts += [torch.from_numpy(pictures.redrawn(images[chosen].numpy(), rng)), torch.from_numpy(printed)]
        answers += [labels[chosen], torch.from_numpy(digits)]
        outliers = torch.from_numpy(pictures.outliers(recipe.outliers, rng))
    return Material(torch.cat(parts).to(device), torch.cat(answers).to(device), outliers.to(device))
