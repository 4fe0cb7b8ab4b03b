"""Several processes, one training run: `torchrun --nproc-per-node N -m training train ...`.

Must not know: what is trained.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from serving.errors import ConfigurationError

# Besides WORLD_SIZE, what torchrun sets and torch reads.
_NEEDED = ("RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Group:
    """The processes that train one network together; by default this one alone."""

    rank: int = 0
    size: int = 1

    def share(self, batch: Tensor) -> Tensor:
        """Return this process's part of a batch (N,); all are equally large, so a few elements may be left out.

        A batch of fewer elements than processes goes whole to each.
        """
        if len(batch) < self.size:
            return batch
        return batch[: len(batch) // self.size * self.size][self.rank :: self.size]

    def wrap(self, model: nn.Module, device: str) -> nn.Module:
        """Return a network whose gradients are the mean over all processes; it shares the weights of `model`."""
        if self.size == 1:
            return model
        if device == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return DistributedDataParallel(model)

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a scalar over all processes."""
        if self.size > 1:
            dist.all_reduce(value)
        return value / self.size


def declared_processes() -> int:
    """Return how many processes torchrun started, as its environment variables say; 1 without them.

    Raises:
        ConfigurationError: WORLD_SIZE is no number of processes, or stands there without the others.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if not size.isdecimal() or int(size) < 1:
        raise ConfigurationError(f"WORLD_SIZE {size!r}: expected a number of processes; unset it to train alone")
    lacking = [name for name in _NEEDED if name not in os.environ]
    if int(size) > 1 and lacking:
        raise ConfigurationError(
            f"WORLD_SIZE is {size}, but there is no {', '.join(lacking)}:"
            " start the processes by torchrun, or unset WORLD_SIZE to train alone"
        )
    return int(size)


@contextmanager
def joined(device: str) -> Iterator[Group]:
    """Join the processes that torchrun started, as its environment variables say; alone without them.

    Args:
        device: "cpu" (they talk by gloo) or "cuda" (by nccl, each process with the GPU of its local rank).

    Raises:
        ConfigurationError: see `declared_processes`.
    """
    if declared_processes() == 1:
        yield Group()
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Group(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
