"""What a stretch of input holds: its items in order, each a 28x28 image or the reason why there is none.

Must not know: file formats, the model, the output.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
NO_LABEL = -1


@dataclass(frozen=True, slots=True)
class Place:
    """Where items come from.

    Attributes:
        ordinal: the number of the source in the order of the input, from 0.
        source: its path, as the output shows it.
        prefix: what goes before the number of an item: the member of an archive, the array of an NPZ file.
    """

    ordinal: int
    source: str
    prefix: str = ""


@dataclass(slots=True)
class Items:
    """The items of one task.

    Attributes:
        ordinals: int64, shape (N,), the source of each item.
        sources: the path of each item, or one for all.
        names: which item of its source, empty where the source is one item.
        images: uint8, shape (N, 28, 28), 0 = paper, 255 = ink; zeros where there is an error.
        labels: int8, shape (N,), -1 where it is not known.
        errors: position -> why the item cannot be scored.
        reasons: position -> reasons to doubt the result.
        blank: the positions where nothing is written.
    """

    ordinals: npt.NDArray[np.int64]
    sources: str | list[str]
    names: list[str]
    images: Images
    labels: npt.NDArray[np.int8]
    errors: dict[int, str] = field(default_factory=dict)
    reasons: dict[int, tuple[str, ...]] = field(default_factory=dict)
    blank: set[int] = field(default_factory=set)


class Task(Protocol):
    """A stretch of input that any thread, process or machine can decode."""

    def decode(self) -> Items:
        """Return its items; never raises for what the input holds."""
        ...


def rows_of_place(
    place: Place, names: list[str], images: Images, labels: npt.NDArray[np.int8] | None, errors: dict[int, str]
) -> Items:
    """Return the items of one source whose pixels came as numbers.

    Args:
        place: the source.
        names: N numbers within it.
        images: uint8, shape (N, 28, 28).
        labels: int8, shape (N,), or None where there are none.
        errors: position -> why the item cannot be scored.
    """
    count = len(names)
    if labels is None:
        labels = np.full(count, NO_LABEL, np.int8)
    images, flat = _as_ink_on_paper(images)
    blank = set(np.flatnonzero(flat).tolist()) - errors.keys()
    return Items(
        np.full(count, place.ordinal, np.int64),
        place.source,
        [f"{place.prefix}{name}" for name in names] if place.prefix else names,
        images,
        labels,
        errors,
        {},
        blank,
    )


def _as_ink_on_paper(images: Images) -> tuple[Images, npt.NDArray[np.bool_]]:
    """Return the images with negatives turned, and which of them are of one colour.

    A negative has light paper at the edge: the first and last lines of MNIST's 70,000 images sum to 932 at most, of
    14,280.
    """
    pixels = images.reshape(len(images), 784)
    flat = pixels.max(axis=1, initial=0) == pixels.min(axis=1, initial=255)
    edges = images[:, 0].sum(axis=1, dtype=np.int32) + images[:, 27].sum(axis=1, dtype=np.int32)
    negative = edges > 2 * 28 * 127
    if negative.any():
        images = np.where(negative[:, None, None], 255 - images, images)
    return images, flat
