"""NPZ: every array of images in it, with the labels that belong to it.

Must not know: the model.
"""

import zipfile
from collections.abc import Iterator
from dataclasses import replace
from typing import IO

import numpy as np

from serving.errors import InvalidInput
from serving.offline.archives import Metered
from serving.offline.arrays import ArrayRows, npy_tasks, read_npy_header
from serving.offline.columns import LABEL_NAMES
from serving.offline.items import Place
from serving.offline.pixels import PIXELS, Numbers, Scale
from serving.offline.streams import BROKEN, Readable, read_fully

SUFFIX = ".npy"

# What turns the name of an array of images into that of its labels: Keras's mnist.npz, MedMNIST, scikit-learn, savez.
_PAIRS = (
    *(("x", "y"), ("X", "y"), ("images", "labels"), ("image", "label"), ("data", "target")),
    *(("arr_0", "arr_1"), ("arr_1", "arr_0")),
)


def is_npz(archive: zipfile.ZipFile) -> bool:
    """Tell whether a zip file holds arrays and nothing else."""
    names = archive.namelist()
    return bool(names) and all(name.endswith(SUFFIX) for name in names)


def npz_arrays(archive: zipfile.ZipFile, place: Place, scale: Scale) -> Iterator[tuple[str, Iterator[ArrayRows]]]:
    """Yield the name and the tasks of every array of images; each must be read before the next is asked for.

    Args:
        archive: the file.
        place: the source; items are named `ARRAY/NUMBER`.
        scale: see `decide_scale`.

    Raises:
        InvalidInput: no array of images. The tasks raise it for an array that holds no images, or pickles.
    """
    flat = {name: header for name in archive.namelist() if (header := _flat_header(archive, name))}
    images = [name for name in archive.namelist() if name not in flat] or _single_images(flat)
    if not images:
        raise InvalidInput("an NPZ file without an array of images")
    flat_numbers = {name for name, (_, dtype) in flat.items() if dtype.kind != "b" and name not in images}
    for name in images:
        stem = name.removesuffix(SUFFIX)
        inner = replace(place, prefix=f"{place.prefix}{stem}/")
        yield stem, _tasks(archive, name, _labels_name(name, images, flat_numbers), inner, scale)


def _tasks(
    archive: zipfile.ZipFile, name: str, labels_name: str | None, place: Place, scale: Scale
) -> Iterator[ArrayRows]:
    labels = _labels(archive, labels_name)
    with _open(archive, name) as stream:
        yield from npy_tasks(_metered(archive, name, stream), place, scale, labels)


def _open(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    return archive.open(name)


def _metered(archive: zipfile.ZipFile, name: str, stream: Readable) -> Readable:
    return Metered(stream, archive.getinfo(name).compress_size)


def _flat_header(archive: zipfile.ZipFile, name: str) -> tuple[int, np.dtype[np.generic]] | None:
    """Return length and dtype of an array of one axis, as labels are; a broken one is left to be read as images."""
    try:
        with _open(archive, name) as stream:
            shape, _, dtype = read_npy_header(stream)
    except (InvalidInput, *BROKEN):
        return None
    return (shape[0], dtype) if len(shape) == 1 else None


def _single_images(flat: dict[str, tuple[int, np.dtype[np.generic]]]) -> list[str]:
    """Return the arrays that hold one image in one axis: beside images with more axes they would be 784 labels."""
    return [name for name, (count, _) in flat.items() if count == PIXELS and not _names_labels(name)]


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


def _labels(archive: zipfile.ZipFile, name: str | None) -> Numbers | None:
    if name is None:
        return None
    with _open(archive, name) as stream:
        (count,), _, dtype = read_npy_header(stream)
        data = read_fully(_metered(archive, name, stream), count * dtype.itemsize)
    if len(data) < count * dtype.itemsize:
        raise InvalidInput(f"{name}: cut short")
    return np.frombuffer(data, dtype)
