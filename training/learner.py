"""A network in training: its weights, its optimizer and what it learns from, one epoch at a time.

Must not know: files, the console.
"""

import math
import time
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.architectures import build
from training.augment import STRENGTHS, augment
from training.averaging import Average
from training.checkpoint import Checkpoint, EpochRecord
from training.distributed import Group
from training.errors import CheckpointRejected
from training.evaluate import evaluate, predictor
from training.listener import Listener
from training.material import gather
from training.mnist import Mnist, split
from training.objective import objective
from training.recipe import Recipe
from training.schedule import one_cycle

# As often as the tutorial reports.
REPORT_EVERY_BATCHES = 300


def epoch_seed(seed: int, epoch: int, *more: int) -> int:
    """Return the seed of one epoch's generator, 64 bits; epoch 0 draws the first weights."""
    return int(np.random.SeedSequence((seed, epoch, *more)).generate_state(1, np.uint64)[0])


@dataclass(frozen=True)
class Part:
    """Images uint8 (N, 28, 28) with their labels int64 (N,)."""

    images: Tensor
    labels: Tensor


class Learner:
    """The network, its optimizer and the data on the device.

    Args:
        recipe: what to do.
        data: MNIST.
        seed: decides whatever is random.
        device: "cpu" or "cuda".
        listener: hears of every batch and loss.
        group: the processes that train together.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: Mnist,
        seed: int,
        device: str,
        listener: Listener,
        group: Group,
    ):
        self.recipe, self.seed, self.device, self.listener = recipe, seed, device, listener
        self.group = group
        torch.manual_seed(epoch_seed(seed, 0))
        # In the default layout a step of mnist-cnn takes 6.3 ms instead of 4.7, mostly for its pools.
        self.model = build(recipe.architecture).to(device).to(memory_format=torch.channels_last)
        self.average = Average(self.model, recipe.averaging) if recipe.averaging else None
        self.optimizer = torch.optim.SGD(
            _weights(self.model, recipe.weight_decay),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            fused=True,
        )
        self.wrapped = group.wrap(self.model, device)
        self.strength = STRENGTHS[recipe.augmentation]
        self.chance = torch.Generator(device)
        train, self.held_out, self.held_out_name = _parts(recipe, data)
        self.material = gather(recipe, train.images, train.labels, seed, device)
        self.batches = math.ceil(len(self.material.images) / (recipe.batch_size * group.size))

    def begin(self, resume: Checkpoint | None) -> Checkpoint:
        """Take over the state of an earlier run, if there is one, and return where this one stands.

        Raises:
            CheckpointRejected: its weights or its optimizer do not fit.
        """
        if resume is None:
            return self.state(())
        try:
            self.model.load_state_dict(resume.unaveraged or resume.state_dict)
            if self.average:
                self.average.model.load_state_dict(resume.state_dict)
                self.average.steps = resume.epoch * self.batches
            self.optimizer.load_state_dict(deepcopy(resume.optimizer))  # it would go on with the very tensors
        except (KeyError, ValueError, RuntimeError, AttributeError, TypeError) as error:
            detail = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
            raise CheckpointRejected(f"the checkpoint cannot be gone on from, train anew: {detail}") from error
        return resume

    def epoch(self, epoch: int) -> EpochRecord:
        """Train for one epoch and measure."""
        torch.manual_seed(epoch_seed(self.seed, epoch))
        self.chance.manual_seed(epoch_seed(self.seed, epoch, 1 + self.group.rank))
        started = time.perf_counter()
        loss = self._pass(epoch)
        seconds = time.perf_counter() - started
        evaluation = evaluate(
            predictor(self._published(), self.device), self.held_out.images.numpy(), self.held_out.labels.numpy()
        )
        return EpochRecord(epoch, loss, evaluation.accuracy, self.held_out_name, round(seconds, 3))

    def _pass(self, epoch: int) -> float:
        """Take one step per batch over all images in a new order; return the mean loss."""
        count = len(self.material.images)
        size = self.recipe.batch_size * self.group.size
        total, recent = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        self.model.train()
        for batch, chosen in enumerate(torch.split(torch.randperm(count), size), start=1):
            self._set_rate((epoch - 1) * self.batches + batch - 1)
            loss = self._step(self.group.share(chosen).to(self.device))
            total += loss * len(chosen)
            recent += loss
            self.listener.on_batch(epoch, batch, self.batches)
            if batch % REPORT_EVERY_BATCHES == 0:
                self.listener.on_loss(epoch, batch, recent.item() / REPORT_EVERY_BATCHES)
                recent.zero_()
        return self.group.mean(total).item() / count

    def _set_rate(self, step: int) -> None:
        """Set the learning rate for one step of the run, counted from 0."""
        if self.recipe.schedule == "one-cycle":
            share = one_cycle(step, self.batches * self.recipe.epochs, self.recipe.warm_up, self.recipe.final_rate)
            for weights in self.optimizer.param_groups:
                weights["lr"] = self.recipe.learning_rate * share

    def _step(self, chosen: Tensor) -> Tensor:
        """Learn from the images with these indices; return their mean loss, detached."""
        images, labels = self.material.batch(chosen, self.recipe.outlier_share, self.chance)
        images = augment(images, labels, self.strength, self.chance)
        self.optimizer.zero_grad()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            logits = self.wrapped(images)
        loss = objective(logits.float(), labels, self.recipe)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if self.average:
            self.average.update(self.model)
        return loss.detach()

    def _published(self) -> nn.Module:
        """Return the network whose weights a checkpoint gives out."""
        return self.average.model if self.average else self.model

    def state(self, history: tuple[EpochRecord, ...]) -> Checkpoint:
        """Return a checkpoint after as many epochs as `history` holds; later steps leave it as it is."""
        return Checkpoint(
            architecture=self.recipe.architecture,
            recipe=self.recipe,
            seed=self.seed,
            epoch=len(history),
            history=history,
            state_dict=_copied(self._published()),
            unaveraged=_copied(self.model) if self.average else {},
            optimizer=deepcopy(self.optimizer.state_dict()),
            device=self.device,
        )


def _weights(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Return the weights in the optimizer's groups; decay spares what has one dimension."""
    if not decay:
        return [{"params": list(model.parameters())}]
    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    others = [weight for weight in model.parameters() if weight.dim() <= 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": others}]


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def _parts(recipe: Recipe, data: Mnist) -> tuple[Part, Part, str]:
    """Return what to train on, what to measure after each epoch, and the name of the latter."""
    if recipe.validation_size == 0:
        return Part(data.train_images, data.train_labels), Part(data.test_images, data.test_labels), "test"
    parts = split(data.train_labels, recipe.validation_size)
    train, validation = (
        Part(data.train_images[chosen], data.train_labels[chosen]) for chosen in (parts.train, parts.validation)
    )
    return train, validation, "validation"
