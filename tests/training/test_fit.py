from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from training import learner
from training.checkpoint import Checkpoint, EpochRecord, load
from training.errors import CheckpointRejected
from training.evaluate import evaluate, predictor
from training.fit import fit
from training.learner import epoch_seed
from training.listener import Silence
from training.mnist import Mnist
from training.provenance import packages
from training.recipe import Recipe, find


@pytest.fixture
def recipe() -> Recipe:
    """Return the tutorial's recipe for three epochs of small batches, at a rate that shows something in so few."""
    return replace(find("mnist-cnn", "seed"), epochs=3, batch_size=16, learning_rate=0.02)


class Notes(Silence):
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.losses: list[tuple[int, int, float]] = []
        self.records: list[EpochRecord] = []
        self.batches: list[tuple[int, int, int]] = []

    def on_batch(self, epoch: int, batch: int, batches: int) -> None:
        self.batches.append((epoch, batch, batches))

    def on_loss(self, epoch: int, batch: int, loss: float) -> None:
        self.losses.append((epoch, batch, loss))

    def on_epoch(self, record: EpochRecord) -> None:
        self.records.append(record)


class StopsIn(Silence):
    """A listener that interrupts, as Ctrl-C does, in the middle of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_batch(self, epoch: int, batch: int, batches: int) -> None:
        if (epoch, batch) == (self.epoch, batches // 2):
            raise KeyboardInterrupt


def same(one: Checkpoint, other: Checkpoint) -> bool:
    def tensors(checkpoint: Checkpoint) -> list[Tensor]:
        momenta = [state["momentum_buffer"] for state in checkpoint.optimizer["state"].values()]
        return [*checkpoint.state_dict.values(), *momenta]

    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


def results(checkpoint: Checkpoint) -> list[tuple[int, float, float]]:
    return [(record.epoch, record.loss, record.accuracy) for record in checkpoint.history]


def test_a_network_learns(recipe: Recipe, small_mnist: Mnist):
    trained = fit(recipe, small_mnist, seed=1)
    losses = [record.loss for record in trained.history]
    assert losses[0] > 2 * losses[-1]
    assert trained.history[-1].accuracy > 0.8
    assert trained.epoch == 3


def test_the_same_seed_gives_the_same_weights_bit_for_bit(recipe: Recipe, small_mnist: Mnist):
    first = fit(recipe, small_mnist, seed=1)
    torch.rand(17)  # what was drawn before does not matter
    second = fit(recipe, small_mnist, seed=1)
    assert same(first, second)
    assert results(first) == results(second)


def test_another_seed_gives_other_weights(recipe: Recipe, small_mnist: Mnist):
    recipe = replace(recipe, epochs=1)
    assert not same(fit(recipe, small_mnist, seed=1), fit(recipe, small_mnist, seed=2))


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_run_that_was_stopped_goes_on_to_the_same_weights(
    recipe: Recipe, small_mnist: Mnist, tmp_path: Path, epoch: int
):
    whole = fit(recipe, small_mnist, seed=1)
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, small_mnist, seed=1, save_to=path, listener=StopsIn(epoch))
    assert load(path).epoch == epoch - 1
    resumed = fit(recipe, small_mnist, seed=1, save_to=path, resume=load(path))
    assert same(whole, resumed)
    assert same(whole, load(path))
    assert results(whole) == results(resumed)


def test_a_finished_run_can_be_given_more_epochs(recipe: Recipe, small_mnist: Mnist):
    short = fit(replace(recipe, epochs=2), small_mnist, seed=1)
    assert same(fit(recipe, small_mnist, seed=1), fit(recipe, small_mnist, seed=1, resume=short))


def test_a_checkpoint_in_hand_is_not_changed_by_going_on(recipe: Recipe, small_mnist: Mnist):
    short = fit(replace(recipe, epochs=1), small_mnist, seed=1)
    before = {name: weight.clone() for name, weight in short.state_dict.items()}
    momentum = short.optimizer["state"][0]["momentum_buffer"].clone()
    fit(recipe, small_mnist, seed=1, resume=short)
    assert all(torch.equal(short.state_dict[name], weight) for name, weight in before.items())
    assert torch.equal(short.optimizer["state"][0]["momentum_buffer"], momentum)


@pytest.mark.parametrize(
    ("seed", "changes", "message"),
    [
        (2, {}, "trained with seed 1, not 2"),
        (1, {"learning_rate": 0.5}, r"trained with learning_rate 0\.02, not 0\.5"),
        (1, {"architecture": "mnist-mlp"}, "trained with architecture 'mnist-cnn', not 'mnist-mlp'"),
        (1, {"epochs": 1}, "has 2 epochs behind it, more than 1"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(recipe, small_mnist: Mnist, seed: int, changes, message: str):
    short = fit(replace(recipe, epochs=2), small_mnist, seed=1)
    with pytest.raises(CheckpointRejected, match=message):
        fit(replace(recipe, **changes), small_mnist, seed=seed, resume=short)


def test_a_run_of_several_processes_is_not_gone_on_with_by_one(recipe: Recipe, small_mnist: Mnist):
    by_two = replace(fit(replace(recipe, epochs=1), small_mnist, seed=1), processes=2)
    with pytest.raises(CheckpointRejected, match="trained by 2 processes, not 1"):
        fit(recipe, small_mnist, seed=1, resume=by_two)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": {}}, "cannot be gone on from, train anew: no 'param_groups'"),
        (
            {"optimizer": {"state": {}, "param_groups": []}},
            "loaded state dict has a different number of parameter groups",
        ),
        (
            {"optimizer": {"state": {}, "param_groups": [{"params": [0]}]}},
            "doesn't match the size of optimizer's group",
        ),
        ({"optimizer": {"state": {}, "param_groups": 3}}, "train anew: "),
        ({"unaveraged": {"conv1.bias": torch.zeros(10)}}, "Missing key"),
    ],
)
def test_a_checkpoint_that_does_not_fit_itself_is_refused_in_one_line(
    recipe, small_mnist: Mnist, changes, message: str
):
    short = replace(fit(replace(recipe, epochs=1), small_mnist, seed=1), **changes)
    with pytest.raises(CheckpointRejected, match=message) as caught:
        fit(recipe, small_mnist, seed=1, resume=short)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_says_with_what_it_was_trained_and_by_which_code_it_was_gone_on_with(
    recipe: Recipe, small_mnist: Mnist, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("training.provenance.code_commit", lambda: "a" * 40)
    short = fit(replace(recipe, epochs=1), small_mnist, seed=1, threads=2)
    assert (short.code_commits, short.processes, short.threads) == (("a" * 40,), 1, 2)
    assert short.packages == packages()
    assert fit(replace(recipe, epochs=2), small_mnist, seed=1, resume=short).code_commits == ("a" * 40,)
    monkeypatch.setattr("training.provenance.code_commit", lambda: "b" * 40)
    monkeypatch.setattr("training.provenance.packages", lambda: {"torch": "another"})
    longer = fit(replace(recipe, epochs=2), small_mnist, seed=1, resume=short)
    assert longer.code_commits == ("a" * 40, "b" * 40)
    assert longer.packages == packages()
    assert (longer.device, longer.threads) == ("cpu", "2, 1")
    assert fit(recipe, small_mnist, seed=1, resume=replace(longer, device="cuda")).threads == "2, 1"
    assert fit(recipe, small_mnist, seed=1, resume=replace(longer, device="cuda")).device == "cuda, cpu"


def test_a_run_that_is_told_to_stop_where_it_stands_is_finished(recipe: Recipe, small_mnist: Mnist, tmp_path: Path):
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, small_mnist, seed=1, save_to=path, listener=StopsIn(2))
    shorter = replace(recipe, epochs=1)
    done = fit(shorter, small_mnist, seed=1, save_to=path, resume=load(path), threads=2)
    assert (done.epoch, done.recipe, done.threads) == (1, shorter, 1)
    assert load(path).recipe == shorter


def test_the_caller_keeps_its_generator_and_its_threads(recipe: Recipe, small_mnist: Mnist):
    torch.manual_seed(5)
    expected, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(5)
    fit(replace(recipe, epochs=1), small_mnist, seed=1, threads=1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


def test_every_image_is_learnt_from_once_an_epoch(recipe: Recipe, small_mnist: Mnist):
    notes = Notes()
    fit(replace(recipe, epochs=2, batch_size=48), small_mnist, seed=1, listener=notes)
    # 400 images are eight batches of 48 and one of 16.
    assert notes.batches == [(epoch, batch, 9) for epoch in (1, 2) for batch in range(1, 10)]


def test_the_loss_is_reported_as_the_mean_of_the_last_batches(recipe: Recipe, small_mnist: Mnist, monkeypatch):
    notes = Notes()
    monkeypatch.setattr(learner, "REPORT_EVERY_BATCHES", 5)
    fit(replace(recipe, epochs=1, batch_size=40), small_mnist, seed=1, listener=notes)
    assert [(epoch, batch) for epoch, batch, _ in notes.losses] == [(1, 5), (1, 10)]
    # All batches are of one size: the mean of both reports is the epoch's.
    reported = [loss for *_, loss in notes.losses]
    assert sum(reported) / 2 == pytest.approx(notes.records[0].loss, rel=1e-5)


def test_the_tutorial_reports_every_300_batches():
    assert learner.REPORT_EVERY_BATCHES == 300


def test_each_epoch_is_measured_on_the_test_set(recipe: Recipe, small_mnist: Mnist):
    notes = Notes()
    trained = fit(recipe, small_mnist, seed=1, listener=notes)
    oracle = evaluate(predictor(trained.model()), small_mnist.test_images.numpy(), small_mnist.test_labels.numpy())
    assert notes.records[-1].accuracy == oracle.accuracy
    assert {record.split for record in notes.records} == {"test"}
    assert tuple(notes.records) == trained.history


def test_a_recipe_with_validation_never_looks_at_the_test_set(recipe: Recipe, small_mnist: Mnist):
    unreadable = replace(small_mnist, test_images=None, test_labels=None)
    trained = fit(replace(recipe, epochs=1, validation_size=80), unreadable, seed=1)
    assert trained.history[0].split == "validation"
    assert trained.history[0].accuracy * 80 == pytest.approx(round(trained.history[0].accuracy * 80))


def test_every_epoch_has_a_seed_of_its_own():
    assert len({epoch_seed(seed, epoch) for seed in range(10) for epoch in range(10)}) == 100
    assert epoch_seed(1, 2) == epoch_seed(1, 2)
