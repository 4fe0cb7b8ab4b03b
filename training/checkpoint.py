"""Checkpoints: everything that a stopped run needs to go on to the same result, as tensors and plain values.

Must not know: the training loop. A checkpoint is read with `weights_only=True` and never otherwise, so that reading one
runs no code that it brings along.
"""

import fcntl
import logging
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor, nn

from training.architectures import build
from training.errors import CheckpointRejected
from training.recipe import Recipe

logger = logging.getLogger(__name__)

FORMAT = 1
FILE_NAME = "checkpoint.pt"


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch came to."""

    epoch: int
    loss: float
    """Mean cross-entropy of the training images during the epoch."""
    accuracy: float
    """Share of right answers, 0 to 1, on `split`."""
    split: str
    """"test" or "validation"."""
    seconds: float
    """Wall-clock time of training, evaluation apart."""


@dataclass(frozen=True)
class Checkpoint:
    """A run after `epoch` epochs. It holds no generator's state: each epoch draws from its own, by seed and epoch."""

    # How `load` reads one: tensors as they are, no field that is not listed.
    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    architecture: str
    recipe: Recipe
    seed: int
    epoch: Annotated[int, Field(ge=0)]
    history: tuple[EpochRecord, ...]
    state_dict: dict[str, Tensor]
    optimizer: dict[str, Any]
    device: str
    """Device type that the run used, "cpu" or "cuda"; "cpu, cuda" if it was gone on with on another."""
    unaveraged: dict[str, Tensor] = field(default_factory=dict)
    """The weights that the run goes on from, where `state_dict` is their running mean; otherwise empty."""
    code_commits: tuple[str, ...] = ()
    """Of the training code; several where others have resumed the run, none of a run before this was noted."""
    packages: dict[str, str] = field(default_factory=dict)
    """Releases that the run was begun with; see `training.provenance`."""
    processes: Annotated[int, Field(ge=1)] = 1
    """How many trained together."""
    threads: int | str = 1
    """CPU threads of each operation; "1, 2" if the run was gone on with by another number."""

    def model(self) -> nn.Module:
        """Return the network with these weights, on the CPU, in evaluation mode."""
        model = build(self.architecture)
        model.load_state_dict(self.state_dict)
        return model.eval()


_CHECKPOINT = TypeAdapter(Checkpoint)


def path_of(folder: Path, recipe: Recipe, seed: int) -> Path:
    """Return where a run keeps its checkpoint below `folder`."""
    return folder / f"{recipe.architecture}-{recipe.name}-seed{seed}" / FILE_NAME


def siblings(path: Path, checkpoint: Checkpoint) -> list[Checkpoint]:
    """Return the finished runs of the same recipe, by as many processes, at other seeds that lie beside a checkpoint.

    One that cannot be read, or holds weights that are not finite numbers, is left out, with a warning.

    Args:
        path: where `checkpoint` was read from.
        checkpoint: the one to find siblings of.
    """
    recipe = checkpoint.recipe
    runs = Path(os.path.normpath(path.absolute())).parent.parent
    found = []
    for other in sorted(runs.glob(f"{recipe.architecture}-{recipe.name}-seed*/{FILE_NAME}")):
        if other.resolve() == path.resolve():
            continue
        try:
            found.append(_load_finite(other))
        except CheckpointRejected as error:
            logger.warning("left out of the comparison of seeds: %s", error)
    return [
        other
        for other in found
        if (other.recipe, other.processes) == (recipe, checkpoint.processes)
        and (other.epoch == recipe.epochs and other.seed != checkpoint.seed)
    ]


@contextmanager
def written_by_one(path: Path) -> Iterator[None]:
    """Keep other trainings from a checkpoint's folder, which is made and, if empty in the end, removed.

    The system lets go of it for a process that dies. Where it has no locks, as for folders on NFS, nothing is kept off.

    Raises:
        CheckpointRejected: another training writes there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckpointRejected(
                f"another training writes {path}: wait for it, or choose another --output"
            ) from error
        except OSError:
            pass
        yield
    finally:
        with suppress(OSError):  # it holds the checkpoint
            path.parent.rmdir()
        os.close(descriptor)


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write `path` in one step: a reader, or a run that is killed meanwhile, sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {name: getattr(checkpoint, name) for name in checkpoint.__dataclass_fields__}
    content |= {
        "format": FORMAT,
        "recipe": asdict(checkpoint.recipe),
        "history": [asdict(record) for record in checkpoint.history],
    }
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
            # torch.save, refused by the system, complains instead that the file is not whole.
            raise error.__context__ from None
        raise


def load(path: Path) -> Checkpoint:
    """Read a checkpoint that `save` wrote; its tensors lie on the CPU.

    Raises:
        CheckpointRejected: it cannot be read, holds more than tensors and plain values, or is none of ours.
    """
    content = _read(path)
    if content.get("format") != FORMAT:
        raise CheckpointRejected(
            f"{path} is no checkpoint of a training run;"
            " for a bare state_dict there is `evaluate FILE --architecture NAME`"
        )
    try:
        checkpoint = _CHECKPOINT.validate_python({key: value for key, value in content.items() if key != "format"})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise CheckpointRejected(f"{path} is a checkpoint of another version of this program: {what}") from error
    _filled(checkpoint.architecture, checkpoint.state_dict, path)
    return checkpoint


def _load_finite(path: Path) -> Checkpoint:
    checkpoint = load(path)
    if not all(bool(tensor.isfinite().all()) for tensor in checkpoint.state_dict.values()):
        raise CheckpointRejected(f"{path} holds weights that are not finite numbers")
    return checkpoint


def load_weights(path: Path, architecture: str) -> nn.Module:
    """Read the weights of a checkpoint, or of a bare `torch.save(model.state_dict(), path)`.

    Args:
        path: the file.
        architecture: the network that the weights belong to.

    Returns:
        The network, on the CPU, in evaluation mode.

    Raises:
        CheckpointRejected: it cannot be read, holds more than tensors and plain values, or fits another network.
    """
    content = _read(path)
    return _filled(architecture, content.get("state_dict", content), path).eval()


def _filled(architecture: str, state_dict: dict[str, Tensor], source: Path) -> nn.Module:
    model = build(architecture)
    try:
        model.load_state_dict(state_dict)
    except (RuntimeError, AttributeError, TypeError) as error:
        detail = " ".join(str(error).split())
        raise CheckpointRejected(f"{source}: the weights do not fit {architecture}: {detail}") from error
    return model


def _read(path: Path) -> dict[str, Any]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise CheckpointRejected(f"{path} cannot be read: {error.strerror}") from error
    with file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _check_intact(path)
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        # A file that is none raises whatever its bytes happen to lead to: KeyError, EOFError, OSError, ...
        except Exception as error:
            raise CheckpointRejected(f"{path} {_reason(path, str(error))}") from error
    if not isinstance(content, dict):
        raise CheckpointRejected(f"{path} holds a {type(content).__name__}, not a checkpoint or a state_dict")
    return content


def _check_intact(path: Path) -> None:
    """Refuse an archive with a member that is not what its checksum says: torch would read it all the same."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise CheckpointRejected(f"{path} is damaged: copy it again, or train again ({error})") from error
    if broken:
        raise CheckpointRejected(f"{path} is damaged: copy it again, or train again ({broken} is not what was saved)")


def _reason(path: Path, error: str) -> str:
    """Say in one line why torch would not read the file, and the remedy."""
    if "TorchScript" in error:
        return "is a TorchScript archive: save `module.state_dict()` with torch.save instead"
    if found := re.search(r"GLOBAL ([\w.]+)|global ([\w.]+)", error):
        return (
            f"holds {found[1] or found[2]}, which is neither a tensor nor a plain value: save `model.state_dict()`, "
            "and numbers as float(...) or int(...)"
        )
    if path.read_bytes()[:2] == b"PK" and not zipfile.is_zipfile(path):
        return "is cut off: copy it again, or train again"
    return "is no checkpoint: expected a file that torch.save wrote from tensors and plain values"
