"""Training on a GPU: the same code, everything on the device."""

from dataclasses import replace

import pytest
import torch

from tests.training.test_fit import StopsIn, same
from training.checkpoint import Checkpoint, load
from training.fit import fit
from training.mnist import Mnist
from training.recipe import Recipe, find

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU"),
]

TUTORIAL = replace(find("mnist-cnn", "seed"), epochs=3, batch_size=16, learning_rate=0.02)
BEST = replace(
    find("mnist-resnet", "best"),
    epochs=3,
    batch_size=32,
    averaging=0.9,
    validation_size=100,
    redrawn_digits=20,
    printed_digits=20,
    outliers=20,
)


def learnt(state: Checkpoint) -> list[float]:
    return [record.loss for record in state.history]


@pytest.mark.parametrize("recipe", [TUTORIAL, BEST], ids=["tutorial", "best"])
def test_a_network_learns_on_a_gpu(recipe: Recipe, small_mnist: Mnist):
    state = fit(recipe, small_mnist, seed=1, device="cuda")
    assert state.device == "cuda"
    losses = learnt(state)
    assert losses[-1] < losses[0] * 0.9
    assert all(not tensor.is_cuda for tensor in state.state_dict.values())


def test_the_tutorials_recipe_learns_on_a_gpu_as_on_a_cpu(small_mnist: Mnist):
    on_gpu, on_cpu = (fit(TUTORIAL, small_mnist, seed=1, device=device) for device in ("cuda", "cpu"))
    assert learnt(on_gpu) == pytest.approx(learnt(on_cpu), rel=1e-2)


@pytest.mark.parametrize("recipe", [TUTORIAL, BEST], ids=["tutorial", "best"])
def test_a_run_that_was_stopped_goes_on_to_the_same_weights_on_a_gpu(recipe: Recipe, small_mnist: Mnist, tmp_path):
    whole = fit(recipe, small_mnist, seed=1, device="cuda")
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, small_mnist, seed=1, device="cuda", save_to=path, listener=StopsIn(2))
    resumed = fit(recipe, small_mnist, seed=1, device="cuda", resume=load(path))
    assert same(whole, resumed)
