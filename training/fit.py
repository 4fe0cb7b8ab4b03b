"""The training loop.

Must not know: the console, or where runs lie; a `Listener` hears how it goes, `save_to` names the checkpoint.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from training import provenance
from training.checkpoint import Checkpoint, save
from training.distributed import Group
from training.errors import CheckpointRejected
from training.learner import Learner
from training.listener import Listener, Silence
from training.mnist import Mnist
from training.recipe import Recipe

ALONE = Group()


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
    group: Group = ALONE,
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
        group: the processes that train together; each takes its share of batches that are as many times larger.

    Returns:
        The checkpoint after the last epoch.

    Raises:
        CheckpointRejected: `resume` belongs to another run.
    """
    if group.rank:
        save_to, listener = None, None
    listener = listener or Silence()
    if resume:
        _check_same_run(resume, recipe, seed, group.size)
    with (
        _limited(threads),
        torch.random.fork_rng(devices=[] if device == "cpu" else [torch.cuda.current_device()]),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        learner = Learner(recipe, data, seed, device, listener, group)
        origin = _origin(resume, device, group.size, threads)
        begun = learner.begin(resume)
        # Of a resumed run the number of epochs may be another than before, even as many as are done.
        state = replace(begun, recipe=recipe) if resume else replace(begun, **origin)
        if save_to and (not resume or resume.recipe != recipe):
            save(state, save_to)
        for epoch in range(state.epoch + 1, recipe.epochs + 1):
            record = learner.epoch(epoch)
            state = replace(learner.state((*state.history, record)), **origin)
            if save_to:
                save(state, save_to)
            listener.on_epoch(record)
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


def _origin(resume: Checkpoint | None, device: str, processes: int, threads: int) -> dict[str, Any]:
    """Return what a checkpoint says of how the run came about; of a resumed one, how it was begun and who went on."""
    before, now = (resume.code_commits if resume else ()), provenance.code_commit()
    return {
        "code_commits": before if now in before else (*before, now),
        "packages": (resume.packages if resume else {}) or provenance.packages(),
        "processes": processes,
        "device": _with(resume.device, device) if resume else device,
        "threads": _with(resume.threads, threads) if resume else threads,
    }


def _with(before: int | str, now: int | str) -> int | str:
    """Return what was used before, and behind a comma what is used now if that is something else."""
    return before if str(now) in str(before).split(", ") else f"{before}, {now}"


def _check_same_run(checkpoint: Checkpoint, recipe: Recipe, seed: int, processes: int) -> None:
    """Refuse to go on from another run; only the number of epochs may have grown, where no schedule depends on it."""
    if checkpoint.seed != seed:
        raise CheckpointRejected(f"the checkpoint was trained with seed {checkpoint.seed}, not {seed}")
    if checkpoint.processes != processes:
        raise CheckpointRejected(f"the checkpoint was trained by {checkpoint.processes} processes, not {processes}")
    before, now = checkpoint.recipe.hyperparameters(), recipe.hyperparameters()
    for name in before:
        may_differ = name == "epochs" and recipe.schedule == "constant"
        if not may_differ and before[name] != now[name]:
            raise CheckpointRejected(f"the checkpoint was trained with {name} {before[name]!r}, not {now[name]!r}")
    if checkpoint.epoch > recipe.epochs:
        raise CheckpointRejected(f"the checkpoint has {checkpoint.epoch} epochs behind it, more than {recipe.epochs}")
