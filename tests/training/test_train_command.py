from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training import mnist, recipe
from training.__main__ import main
from training.checkpoint import load
from training.mnist import Mnist

SEED = recipe.find("mnist-cnn", "seed")
SECOND_HALF = replace(SEED, name="second", begins_with="seed", epochs=1)


@pytest.fixture
def small_recipes(small_mnist: Mnist, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands read the small data set and know two short recipes, one of which begins with the other."""
    monkeypatch.setattr(mnist, "load", lambda _: small_mnist)
    monkeypatch.setattr(recipe, "RECIPES", (replace(SEED, epochs=2), SECOND_HALF))


@pytest.mark.usefixtures("small_recipes")
def test_training_makes_the_first_half_where_it_is_missing_and_takes_it_where_it_is_there(tmp_path: Path) -> None:
    line = ["train", "mnist-cnn", "--recipe", "second", "--output", str(tmp_path)]
    first, second = (tmp_path / f"mnist-cnn-{name}-seed1" / "checkpoint.pt" for name in ("seed", "second"))
    assert main(line) == 0
    assert load(first).epoch == 2
    made = first.stat().st_mtime_ns
    before = load(second).state_dict
    second.unlink()
    assert main(line) == 0
    assert first.stat().st_mtime_ns == made
    assert all(np.array_equal(before[name], tensor) for name, tensor in load(second).state_dict.items())
