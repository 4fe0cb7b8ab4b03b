"""The published network that a recipe imitates.

Must not know: how it is imitated.
"""

from pathlib import Path

from serving import repository
from training.evaluate import Predict
from training.recipe import Recipe


def teacher_of(recipe: Recipe, models: Path, threads: int) -> Predict | None:
    """Return the newest published version of a recipe's teacher, as a function from images to logits.

    Args:
        recipe: may name a teacher.
        models: the model repository.
        threads: CPU threads to run it on.

    Returns:
        The function, or None if the recipe has no teacher.

    Raises:
        ModelNotFound: it was never published.
        ModelRejected: it failed a check.
    """
    if recipe.teacher is None:
        return None
    model = repository.load(repository.Repository(models).folder(recipe.teacher), "cpu", threads)
    return lambda images: model.runtime.run(images).logits
