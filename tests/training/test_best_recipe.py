from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from training import learner, pictures, shapes
from training.architectures import build
from training.averaging import Average
from training.checkpoint import load
from training.fit import fit
from training.listener import Silence
from training.material import NO_DIGIT, Material, gather
from training.mnist import Mnist
from training.objective import objective
from training.recipe import Recipe, find
from training.schedule import one_cycle

LOGITS = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([3, 1, 0, 1, 5, 9])


@pytest.fixture
def recipe() -> Recipe:
    """Return mnist-resnet's recipe, cut short and without drawn pictures."""
    return replace(
        find("mnist-resnet", "best"),
        **{"architecture": "mnist-cnn", "epochs": 2, "batch_size": 25, "validation_size": 50, "averaging": 0.9},
        **{"redrawn_digits": 0, "printed_digits": 0, "outliers": 0, "outlier_share": 0.0, "learning_rate": 0.05},
    )


def test_a_plain_objective_is_the_cross_entropy() -> None:
    assert objective(LOGITS, LABELS, find("mnist-cnn", "seed")) == F.cross_entropy(LOGITS, LABELS)


def test_smoothing_spreads_a_share_of_each_label_over_all_digits() -> None:
    smooth = objective(LOGITS, LABELS, replace(find("mnist-cnn", "seed"), label_smoothing=0.2))
    spread = -F.log_softmax(LOGITS, dim=1).mean()
    assert smooth == pytest.approx(float(0.8 * F.cross_entropy(LOGITS, LABELS) + 0.2 * spread), abs=1e-5)


def test_what_is_no_digit_is_to_be_undecided(recipe: Recipe) -> None:
    recipe = replace(recipe, outlier_share=0.5, outlier_weight=0.5)
    labels = torch.where(torch.arange(6) < 4, LABELS, NO_DIGIT)
    sure, undecided = LOGITS.clone(), LOGITS.clone()
    sure[4:, 0], undecided[4:] = 20.0, 1.0
    digits = F.cross_entropy(LOGITS[:4], LABELS[:4])
    assert objective(undecided, labels, recipe) == pytest.approx(float(digits + 0.5 * np.log(10)), abs=1e-5)
    assert objective(sure, labels, recipe) > objective(undecided, labels, recipe) + 1


def test_a_batch_without_outliers_has_the_loss_of_its_digits(recipe: Recipe) -> None:
    recipe = replace(recipe, outlier_share=0.5)
    assert objective(LOGITS, LABELS, recipe) == F.cross_entropy(LOGITS, LABELS)


def test_the_rate_rises_in_a_line_and_falls_along_a_cosine() -> None:
    rates = [one_cycle(step, 100, 0.2, 0.1) for step in range(100)]
    assert rates[:20] == sorted(rates[:20])
    assert rates[0] == pytest.approx(1 / 21)
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert max(rates) == pytest.approx(1.0)
    assert rates[60] == pytest.approx(0.55, abs=0.01)
    assert 0.1 < rates[-1] < 0.101


def test_an_average_lags_behind_the_weights_and_takes_batch_norm_along() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = Average(model, 0.5)
    average.steps = 1000
    before = model[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight += 1
        model[1].running_mean += 4
    average.update(model)
    assert torch.allclose(average.model[0].weight, before + 0.5)
    assert torch.allclose(average.model[1].running_mean, torch.full((2,), 2.0))


def test_an_average_follows_fast_at_first() -> None:
    model = nn.Linear(1, 1)
    average = Average(model, 0.999)
    with torch.no_grad():
        model.weight += 1
    average.update(model)
    assert torch.allclose(average.model.weight, model.weight - 0.1)


def test_the_residual_network_keeps_within_its_budget() -> None:
    model = build("mnist-resnet")
    assert shapes.multiply_adds(model) <= 15_000_000
    assert shapes.parameters(model) == 408_906


def test_a_batch_holds_its_digits_first_and_outliers_behind() -> None:
    images = torch.arange(40, dtype=torch.uint8).view(40, 1, 1).expand(40, 28, 28)
    material = Material(images[:30], torch.arange(30) % 10, images[30:])
    batch, labels = material.batch(torch.tensor([5, 7, 9, 11]), 0.5, torch.Generator().manual_seed(0))
    assert batch[:4, 0, 0].tolist() == [5, 7, 9, 11]
    assert labels.tolist() == [5, 7, 9, 1, NO_DIGIT, NO_DIGIT]
    assert all(value >= 30 for value in batch[4:, 0, 0].tolist())


def test_material_has_what_the_recipe_asks_for(small_mnist: Mnist, recipe: Recipe) -> None:
    recipe = replace(recipe, redrawn_digits=3, printed_digits=4, outliers=5)
    material = gather(recipe, small_mnist.train_images, small_mnist.train_labels, 1, "cpu")
    assert material.images.shape == (407, 28, 28)
    assert material.labels.shape == (407,)
    assert material.outliers.shape == (5, 28, 28)
    assert torch.equal(material.images[:400], small_mnist.train_images)


def test_a_redrawn_digit_keeps_its_label(small_mnist: Mnist, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "redrawn", lambda images, _: images)
    images, labels = small_mnist.train_images, small_mnist.train_labels
    material = gather(replace(recipe, redrawn_digits=20), images, labels, 1, "cpu")
    for image, label in zip(material.images[400:], material.labels[400:], strict=True):
        assert label == labels[(images == image).all(dim=2).all(dim=1)]


def test_one_cycle_goes_over_the_whole_run_also_of_a_resumed_one(
    small_mnist: Mnist, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stops(Silence):
        def on_batch(self, epoch: int, batch: int, batches: int) -> None:
            if epoch == 2:
                raise KeyboardInterrupt

    steps: list[tuple[int, int]] = []

    def noted(step: int, count: int, *more: float) -> float:
        steps.append((step, count))
        return one_cycle(step, count, *more)

    monkeypatch.setattr(learner, "one_cycle", noted)
    path = tmp_path / "checkpoint.pt"
    whole = fit(recipe, small_mnist, seed=1)
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, small_mnist, seed=1, save_to=path, listener=Stops())
    resumed = fit(recipe, small_mnist, seed=1, resume=load(path))
    # 350 images are 14 batches an epoch; the run is stopped at the first of its second epoch.
    assert steps == [(step, 28) for step in (*range(28), *range(15), *range(14, 28))]
    assert all(torch.equal(resumed.state_dict[name], whole.state_dict[name]) for name in whole.state_dict)


def test_a_run_with_everything_learns_and_resumes_to_the_same_weights(small_mnist: Mnist, recipe: Recipe) -> None:
    whole = fit(recipe, small_mnist, seed=1)
    first = fit(replace(recipe, schedule="constant", epochs=1), small_mnist, seed=1)
    again = fit(replace(recipe, schedule="constant"), small_mnist, seed=1, resume=first)
    straight = fit(replace(recipe, schedule="constant"), small_mnist, seed=1)
    assert all(torch.equal(again.state_dict[name], straight.state_dict[name]) for name in again.state_dict)
    assert whole.history[-1].split == "validation"
    assert whole.history[1].loss < whole.history[0].loss
    assert any(not torch.equal(whole.unaveraged[name], whole.state_dict[name]) for name in whole.state_dict)
