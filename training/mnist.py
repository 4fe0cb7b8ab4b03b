"""MNIST as tensors, verified byte for byte.

Must not know: how a source delivers (`training.mnist_sources`), or what is trained on the images.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from torch import Tensor

from training.errors import DataMissing
from training.mnist_sources import Source, SourceFailed, sources

FOLDER = Path("data")

# Of the uncompressed files, as http://yann.lecun.com/exdb/mnist/ gave them.
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_IMAGES_HEADER_BYTES, _LABELS_HEADER_BYTES = 16, 8


@dataclass(frozen=True)
class Mnist:
    """The data set: images uint8 (N, 28, 28), 0 = paper, 255 = ink; labels int64 (N,), 0 to 9."""

    train_images: Tensor
    """(60000, 28, 28)"""
    train_labels: Tensor
    """(60000,)"""
    test_images: Tensor
    """(10000, 28, 28)"""
    test_labels: Tensor
    """(10000,)"""


@dataclass(frozen=True)
class Split:
    """Which training images to learn from and which to choose by: int64 indices, ascending, disjoint."""

    train: Tensor
    validation: Tensor


def fault(name: str, content: bytes) -> str | None:
    """Return what is wrong with the content of the file `name`, or None if it is the true one."""
    found = hashlib.sha256(content).hexdigest()
    return None if found == SHA256[name] else f"{len(content):,} bytes with SHA-256 {found}, expected {SHA256[name]}"


def fetch(folder: Path = FOLDER, places: Sequence[Source] | None = None) -> tuple[str, ...]:
    """Put the four files into `folder`: those that are there and right stay, the others are fetched.

    It can be stopped at any moment and goes on where it was; a second one at the same time waits for the first.

    Args:
        folder: where; made if it is not there.
        places: where from, in the order in which to try; all known sources if None.

    Returns:
        The names of the files that were fetched.

    Raises:
        DataMissing: no source delivered the right content; the text says what to do by hand.
    """
    if not _lacking(folder):
        return ()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        wanted = _lacking(folder)
        left = list(sources() if places is None else places)
        failures: list[str] = []
        for name in wanted:
            _write(folder / name, _delivered(name, folder, left, failures))
    return wanted


def load(folder: Path = FOLDER) -> Mnist:
    """Read the four files.

    Raises:
        DataMissing: a file is missing, or is not MNIST's by its SHA-256.
    """
    train, test = (
        (_images(folder, f"{part}-images-idx3-ubyte"), _labels(folder, f"{part}-labels-idx1-ubyte"))
        for part in ("train", "t10k")
    )
    return Mnist(*train, *test)


def split(labels: Tensor, size: int, seed: int = 0) -> Split:
    """Hold back some images to choose by, every digit in its share of all.

    Args:
        labels: int64 (N,).
        size: how many images to hold back, 0 <= size < N.
        seed: decides which; the default is the split that every recipe uses.

    Returns:
        The split, the same on every machine.
    """
    generator = np.random.default_rng(seed)
    digits = labels.numpy()
    shuffled = generator.permutation(len(digits))
    by_digit = shuffled[np.argsort(digits[shuffled], kind="stable")]
    # Every k-th of the images in order of digit takes from each digit its share, to within one image.
    held_back = np.zeros(len(digits), bool)
    held_back[by_digit[np.arange(size) * len(digits) // max(size, 1)]] = True
    return Split(torch.from_numpy(np.flatnonzero(~held_back)), torch.from_numpy(np.flatnonzero(held_back)))


def _images(folder: Path, name: str) -> Tensor:
    return torch.from_numpy(_read(folder, name, _IMAGES_HEADER_BYTES).reshape(-1, 28, 28).copy())


def _labels(folder: Path, name: str) -> Tensor:
    return torch.from_numpy(_read(folder, name, _LABELS_HEADER_BYTES).astype(np.int64))


def _read(folder: Path, name: str, header_bytes: int) -> npt.NDArray[np.uint8]:
    """Return what follows the header of an IDX file, whose form the SHA-256 vouches for: uint8, flat."""
    remedy = f"`python -m training fetch-data --data {folder}` fetches it"
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise DataMissing(f"{folder / name} cannot be read ({error.strerror}); {remedy}") from error
    if wrong := fault(name, content):
        raise DataMissing(f"{folder / name} is not MNIST's: {wrong}; {remedy} anew")
    return np.frombuffer(content, np.uint8, offset=header_bytes)


def _lacking(folder: Path) -> tuple[str, ...]:
    """Return the names of the files that are not there or not right."""
    paths = {name: folder / name for name in SHA256}
    return tuple(name for name, path in paths.items() if not path.is_file() or fault(name, path.read_bytes()))


def _delivered(name: str, folder: Path, left: list[Source], failures: list[str]) -> bytes:
    """Return the right content from the first place that has it; a place that fails is asked no more."""
    while left:
        try:
            content = left[0].deliver(name, folder)
        except SourceFailed as error:
            problem: str | None = str(error)
        else:
            problem = fault(name, content)
            if problem is None:
                return content
            problem = f"{name}: {problem}"
        failures.append(f"{left.pop(0).name}: {problem}")
    raise DataMissing(_by_hand(folder, failures))


def _by_hand(folder: Path, failures: Sequence[str]) -> str:
    """Say what failed and how to put the files there without a network."""
    files = "\n".join(f"  {name}  {sha256}" for name, sha256 in SHA256.items())
    return (
        "no source of MNIST delivered:\n"
        + "".join(f"  {failure}\n" for failure in failures)
        + f"Put these four files, uncompressed, into {folder.resolve()} by hand (name, SHA-256):\n{files}\n"
        "They are in any copy of MNIST as NAME.gz; `gunzip NAME.gz` unpacks one. Then run the command again."
    )


def _write(path: Path, content: bytes) -> None:
    """Write a file in one step; whoever calls holds the folder's lock."""
    part = path.with_name(f".{path.name}.new")
    part.write_bytes(content)
    part.replace(path)
