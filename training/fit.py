"""The training loop.

Must not know: the console, or where runs lie; a `Listener` hears how it goes, `save_to` names the checkpoint.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from training.architectures import build
from training.checkpoint import Checkpoint, EpochRecord, save
from training.errors import CheckpointRejected
from training.evaluate import evaluate, predictor
from training.mnist import Mnist, split
from training.recipe import Recipe

# As often as the tutorial reports.
REPORT_EVERY_BATCHES = 300


class Listener(Protocol):
    """Whoever wants to hear how the training goes."""

    def on_batch(self, epoch: int, batch: int, batches: int) -> None:
        """Hear that batch `batch` of `batches` is done, both counted from 1."""

    def on_loss(self, epoch: int, batch: int, loss: float) -> None:
        """Hear the mean loss of the last REPORT_EVERY_BATCHES batches."""

    def on_epoch(self, record: EpochRecord) -> None:
        """Hear what an epoch came to; its checkpoint is written."""


class Silence:
    """A listener that does nothing."""

    def on_batch(self, epoch: int, batch: int, batches: int) -> None:
        """Do nothing."""

    def on_loss(self, epoch: int, batch: int, loss: float) -> None:
        """Do nothing."""

    def on_epoch(self, record: EpochRecord) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Part:
    """Images uint8 (N, 28, 28) with their labels int64 (N,)."""

    images: Tensor
    labels: Tensor


def fit(
    recipe: Recipe,
    data: Mnist,
    *,
    seed: int,
    device: str = "cpu",
    threads: int = 1,
    save_to: Path | None = None,
    resume: Checkpoint | None = None,
    listener: Listener | None = None,
) -> Checkpoint:
    """Train a network by a recipe.

    The same recipe, seed, machine and number of threads give the same weights, bit for bit, on the CPU; so does a run
    that was stopped and resumed, for every epoch draws from a generator of its own.

    Args:
        recipe: what to do.
        data: MNIST.
        seed: decides the first weights, the order of the images and whatever else is random.
        device: "cpu" or "cuda".
        threads: CPU threads of each operation. Batches of 64 small images hardly gain from a second one and lose
            threefold on a busy machine, and with one the weights do not depend on how many cores there are.
        save_to: where to write the checkpoint, after each epoch and once before the first.
        resume: a checkpoint of this recipe and seed to go on from.
        listener: hears of every batch, loss and epoch.

    Returns:
        The checkpoint after the last epoch.

    Raises:
        CheckpointRejected: `resume` belongs to another run.
    """
    with (
        _limited(threads),
        torch.random.fork_rng(devices=[] if device == "cpu" else [torch.cuda.current_device()]),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        run = _Run(recipe, data, seed, device, listener or Silence())
        state = run.begin(resume)
        if save_to and not resume:
            save(state, save_to)
        for epoch in range(state.epoch + 1, recipe.epochs + 1):
            record = run.epoch(epoch)
            state = run.state((*state.history, record))
            if save_to:
                save(state, save_to)
            run.listener.on_epoch(record)
    return state


@contextmanager
def _limited(threads: int) -> Iterator[None]:
    """Let torch's operations use so many threads, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of one epoch's generator, 64 bits; epoch 0 draws the first weights."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0])


class _Run:
    """A training run in memory: the network, its optimizer and the data on the device."""

    def __init__(self, recipe: Recipe, data: Mnist, seed: int, device: str, listener: Listener):
        self.recipe, self.seed, self.device, self.listener = recipe, seed, device, listener
        torch.manual_seed(epoch_seed(seed, 0))
        # In the default layout a step of mnist-cnn takes 6.3 ms instead of 4.7, mostly for its pools.
        self.model = build(recipe.architecture).to(device).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum, fused=True
        )
        self.train, self.held_out, self.held_out_name = _parts(recipe, data)
        self.train = Part(self.train.images.to(device), self.train.labels.to(device))

    def begin(self, resume: Checkpoint | None) -> Checkpoint:
        """Take over the state of `resume`, if there is one, and return where the run stands."""
        if resume is None:
            return self.state(())
        _check_same_run(resume, self.recipe, self.seed)
        self.model.load_state_dict(resume.state_dict)
        self.optimizer.load_state_dict(resume.optimizer)
        return resume

    def epoch(self, epoch: int) -> EpochRecord:
        """Train for one epoch and measure."""
        torch.manual_seed(epoch_seed(self.seed, epoch))
        started = time.perf_counter()
        loss = self._pass(epoch)
        seconds = time.perf_counter() - started
        evaluation = evaluate(
            predictor(self.model, self.device), self.held_out.images.numpy(), self.held_out.labels.numpy()
        )
        return EpochRecord(epoch, loss, evaluation.accuracy, self.held_out_name, round(seconds, 3))

    def _pass(self, epoch: int) -> float:
        """Take one step per batch over all images in a new order; return the mean loss."""
        images, labels = self.train.images, self.train.labels
        batches = torch.split(torch.randperm(len(images)).to(self.device), self.recipe.batch_size)
        total, recent = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        self.model.train()
        for batch, chosen in enumerate(batches, start=1):
            loss = self._step(images[chosen], labels[chosen])
            total += loss * len(chosen)
            recent += loss
            self.listener.on_batch(epoch, batch, len(batches))
            if batch % REPORT_EVERY_BATCHES == 0:
                self.listener.on_loss(epoch, batch, recent.item() / REPORT_EVERY_BATCHES)
                recent.zero_()
        return total.item() / len(images)

    def _step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Learn from images uint8 (N, 28, 28) with labels int64 (N,); return their mean cross-entropy, detached."""
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()

    def state(self, history: tuple[EpochRecord, ...]) -> Checkpoint:
        """Return a checkpoint after as many epochs as `history` holds; later steps leave it as it is."""
        return Checkpoint(
            architecture=self.recipe.architecture,
            recipe=self.recipe,
            seed=self.seed,
            epoch=len(history),
            history=history,
            state_dict={name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()},
            optimizer=deepcopy(self.optimizer.state_dict()),
            device=self.device,
        )


def _parts(recipe: Recipe, data: Mnist) -> tuple[Part, Part, str]:
    """Return what to train on, what to measure after each epoch, and the name of the latter."""
    if recipe.validation_size == 0:
        return Part(data.train_images, data.train_labels), Part(data.test_images, data.test_labels), "test"
    parts = split(data.train_labels, recipe.validation_size)
    train, validation = (
        Part(data.train_images[chosen], data.train_labels[chosen]) for chosen in (parts.train, parts.validation)
    )
    return train, validation, "validation"


def _check_same_run(checkpoint: Checkpoint, recipe: Recipe, seed: int) -> None:
    """Refuse to go on from another run; only the number of epochs may have grown."""
    if checkpoint.seed != seed:
        raise CheckpointRejected(f"the checkpoint was trained with seed {checkpoint.seed}, not {seed}")
    before, now = checkpoint.recipe.hyperparameters(), recipe.hyperparameters()
    for name in before:
        if name != "epochs" and before[name] != now[name]:
            raise CheckpointRejected(f"the checkpoint was trained with {name} {before[name]!r}, not {now[name]!r}")
    if checkpoint.epoch > recipe.epochs:
        raise CheckpointRejected(f"the checkpoint has {checkpoint.epoch} epochs behind it, more than {recipe.epochs}")
