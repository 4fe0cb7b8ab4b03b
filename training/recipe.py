"""Recipes: one frozen description of a training run per architecture.

Must not know: how a network is trained.
"""

from dataclasses import asdict, dataclass

from serving.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the weights, but for the seed and the machine."""

    name: str
    architecture: str
    epochs: int
    """Passes over the training images, at least 1."""
    batch_size: int
    """Images per step; the last batch of an epoch may be smaller."""
    learning_rate: float
    """Step size of stochastic gradient descent."""
    momentum: float
    """Share of the last step that the next one keeps, in [0, 1)."""
    validation_size: int
    """Training images held back to choose by; 0 trains on all and reports the test set after each epoch instead."""
    min_accuracy: float
    """Share of the test set, 0 to 1, below which the network is not published."""

    def hyperparameters(self) -> dict[str, float | int | str | bool | None]:
        """Return every field by name, for a checkpoint or a manifest."""
        return asdict(self)


def _seed(architecture: str, min_accuracy: float) -> Recipe:
    """Return the tutorial's own run, which reports the test set after each epoch."""
    return Recipe(
        name="seed",
        architecture=architecture,
        epochs=10,
        batch_size=64,
        learning_rate=0.01,
        momentum=0.5,
        validation_size=0,
        min_accuracy=min_accuracy,
    )


RECIPES = (_seed("mnist-mlp", 0.97), _seed("mnist-cnn", 0.985), _seed("mnist-lenet5", 0.985))


def names() -> tuple[str, ...]:
    """Return the names of all recipes, each once."""
    return tuple(dict.fromkeys(recipe.name for recipe in RECIPES))


def find(architecture: str, recipe_name: str) -> Recipe:
    """Return the recipe of that name for that architecture.

    Raises:
        InvalidInput: there is none.
    """
    for recipe in RECIPES:
        if (recipe.architecture, recipe.name) == (architecture, recipe_name):
            return recipe
    known = ", ".join(f"{recipe.architecture} {recipe.name}" for recipe in RECIPES)
    raise InvalidInput(f"no recipe {recipe_name!r} for {architecture!r}; there are: {known}")
