"""NPZ: every array of images in it, with the labels that belong to it.

Must not know: the model.
"""

import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BufferedIOBase

import numpy as np

from serving.errors import InvalidInput
from serving.offline.archives import Metered, is_hidden
from serving.offline.arrays import NUMBERS, ArrayRows, npy_tasks, read_npy_header
from serving.offline.columns import LABEL_NAMES
from serving.offline.items import Place
from serving.offline.pixels import PIXELS, Numbers, Scale, count_images
from serving.offline.streams import BROKEN, Readable, read_whole
from serving.offline.zip_streams import open_member

SUFFIX = ".npy"
# NumPy's kinds of dtypes that labels may have: numbers, or text of numbers.
LABELS = f"{NUMBERS}US"

# What turns the name of an array of images into that of its labels: Keras's mnist.npz, MedMNIST, scikit-learn, savez.
_PAIRS = (
    *(("x", "y"), ("X", "y"), ("images", "labels"), ("image", "label"), ("data", "target")),
    *(("X", "Y"), ("arr_0", "arr_1"), ("arr_1", "arr_0")),
)


def is_npz(archive: zipfile.ZipFile) -> bool:
    """Tell whether a zip file holds arrays and nothing else, hidden members aside."""
    names = _names(archive)
    return bool(names) and all(name.endswith(SUFFIX) for name in names)


def npz_arrays(archive: zipfile.ZipFile, place: Place, scale: Scale) -> Iterator[tuple[str, Iterator[ArrayRows]]]:
    """Yield the name and the tasks of every array of images; each must be read before the next is asked for.

    Args:
        archive: the file.
        place: the source; items are named `ARRAY/NUMBER`.
        scale: see `decide_scale`.

    Raises:
        InvalidInput: no array of images, or two arrays of one name. The tasks raise it for an array that holds no
            images, or pickles.
    """
    names = _names(archive)
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise InvalidInput(f"more than one array is named {repeated[0].removesuffix(SUFFIX)!r}")
    headers = {name: _header(archive, name) for name in names}
    images = [name for name, header in headers.items() if header is None or header.may_be_images]
    images = images or [name for name, header in headers.items() if header and header.is_image(name)]
    if not images:
        raise InvalidInput("an NPZ file without an array of images")
    flat = {name for name, header in headers.items() if header and header.may_be_labels and name not in images}
    for name in images:
        stem = name.removesuffix(SUFFIX)
        inner = replace(place, prefix=f"{place.prefix}{stem}/")
        yield stem, _tasks(archive, name, _labels_name(name, images, flat), inner, scale)


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [name for name in archive.namelist() if not is_hidden(name)]


def _tasks(
    archive: zipfile.ZipFile, name: str, labels_name: str | None, place: Place, scale: Scale
) -> Iterator[ArrayRows]:
    labels = None
    if labels_name:
        with open_member(archive, name) as stream:
            shape, _, _ = read_npy_header(stream)
        labels = _labels(archive, labels_name, count_images(shape))
    with open_member(archive, name) as stream:
        yield from npy_tasks(_metered(archive, name, stream), place, scale, labels)


def _metered(archive: zipfile.ZipFile, name: str, stream: BufferedIOBase) -> Readable:
    return Metered(stream, archive.getinfo(name).compress_size)


@dataclass(frozen=True, slots=True)
class _Header:
    shape: tuple[int, ...]
    kind: str

    @property
    def may_be_labels(self) -> bool:
        """Whether it has one axis, or a second one of length 1 as MedMNIST's labels."""
        return (len(self.shape) == 1 or self.shape[1:] == (1,)) and self.kind != "b"

    @property
    def may_be_images(self) -> bool:
        return len(self.shape) >= 2 and self.shape[1:] != (1,) and self.kind in NUMBERS

    def is_image(self, name: str) -> bool:
        """Tell whether it holds one image in one axis: beside images with more axes it would be 784 labels."""
        return self.shape == (PIXELS,) and self.kind in NUMBERS and not _names_labels(name)


def _header(archive: zipfile.ZipFile, name: str) -> _Header | None:
    """Return the header of an array; a broken one is left to be read as images."""
    try:
        with open_member(archive, name) as stream:
            shape, _, dtype = read_npy_header(stream, LABELS)
    except (InvalidInput, *BROKEN):
        return None
    return _Header(shape, dtype.kind) if dtype.itemsize else None


def _names_labels(name: str) -> bool:
    return name.removesuffix(SUFFIX).lower() in LABEL_NAMES


def _labels_name(name: str, images: list[str], flat: set[str]) -> str | None:
    """Return which of the flat arrays holds the labels of an array of images: by its name alone, or by both."""
    named = [candidate for candidate in flat if _names_labels(candidate)]
    if len(images) == len(named) == 1:
        return named[0]
    stem = name.removesuffix(SUFFIX)
    found = (stem.replace(one, other) + SUFFIX for one, other in _PAIRS if one in stem)
    return next((candidate for candidate in found if candidate in flat), None)


def _labels(archive: zipfile.ZipFile, name: str, images: int) -> Numbers:
    with open_member(archive, name) as stream:
        (count, *_), _, dtype = read_npy_header(stream, LABELS)
        if count != images:
            raise InvalidInput(f"{images} images, but {count} labels beside them")
        try:
            data = read_whole(_metered(archive, name, stream), count * dtype.itemsize)
        except InvalidInput as error:
            raise InvalidInput(f"{name}: {error}") from error
    labels = np.frombuffer(data, dtype)
    if dtype.kind != "U":
        return labels
    # NumPy stops the process's work at characters that Python's text cannot hold, and no number needs them.
    if (np.frombuffer(data, np.dtype("u4").newbyteorder(dtype.byteorder)) >= 0xD800).any():
        raise InvalidInput(f"{name}: expected text of numbers")
    return np.char.encode(labels, "utf-8")
