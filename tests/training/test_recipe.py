from dataclasses import FrozenInstanceError

import pytest

from serving.errors import InvalidInput
from training.recipe import RECIPES, find, names


@pytest.mark.parametrize(
    ("architecture", "floor"), [("mnist-mlp", 0.97), ("mnist-cnn", 0.985), ("mnist-lenet5", 0.985)]
)
def test_the_seed_recipe_is_the_tutorials(architecture: str, floor: float):
    recipe = find(architecture, "seed")
    assert (recipe.learning_rate, recipe.momentum, recipe.batch_size, recipe.epochs) == (0.01, 0.5, 64, 10)
    assert (recipe.validation_size, recipe.min_accuracy) == (0, floor)


def test_a_recipe_is_found_by_both_names():
    assert all(find(recipe.architecture, recipe.name) is recipe for recipe in RECIPES)
    assert "seed" in names()


def test_an_unknown_recipe_is_refused_with_the_known_ones():
    with pytest.raises(InvalidInput, match=r"no recipe 'fast' for 'mnist-cnn'; there are: .*mnist-cnn seed"):
        find("mnist-cnn", "fast")


def test_a_recipe_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        find("mnist-cnn", "seed").epochs = 1


def test_hyperparameters_are_plain_values():
    values = find("mnist-cnn", "seed").hyperparameters()
    assert values["momentum"] == 0.5
    assert all(value is None or isinstance(value, (bool, int, float, str)) for value in values.values())
