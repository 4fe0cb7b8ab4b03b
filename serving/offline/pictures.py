"""Encoded pictures, each by the service's own preprocessing.

Must not know: where the bytes came from.
"""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from serving.errors import ServingError
from serving.offline.items import Items

# Bytes of one encoded picture. A 50-megapixel photograph has 10 to 25 MB.
PICTURE_BYTES = 64 << 20

# Processor time of one picture, and of every pixel that it may have. One of 50 megapixels takes 1.3 s at most.
PICTURE_CPU_S, PIXEL_CPU_S = 10.0, 1e-6


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture, or one item that is none.

    Attributes:
        ordinal: the source in the order of the input.
        source: its path, as the output shows it.
        name: which item of its source, empty where the source is one picture.
        label: of the folder it lies in, or -1.
        data: the encoded picture, or the path of the file.
        error: why there is nothing to decode.
    """

    ordinal: int
    source: str
    name: str
    label: int
    data: bytes | Path = b""
    error: str | None = None

    @property
    def held_bytes(self) -> int:
        """What it holds in memory before it is decoded."""
        return len(self.data) if isinstance(self.data, bytes) else 0


@dataclass(frozen=True, slots=True)
class Entries:
    """Some pictures; `max_pixels` bounds each."""

    entries: tuple[Entry, ...]
    max_pixels: int

    def decode(self) -> Items:
        """Return the pictures as items."""
        return _decode_all(self.entries, self.max_pixels, lambda: None)

    def decode_or_end(self) -> Items:
        """Return the pictures as items, in a process of its own: one that comes to no end ends it."""
        limit_s = PICTURE_CPU_S + PIXEL_CPU_S * self.max_pixels
        try:
            return _decode_all(self.entries, self.max_pixels, partial(_end_after, limit_s))
        finally:
            _end_after(0)


def _end_after(seconds: float) -> None:
    """Have the system end this process when it has used so much more processor time; 0 = never."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def _decode_all(entries: Sequence[Entry], max_pixels: int, begin: Callable[[], None]) -> Items:
    """Decode and preprocess pictures, calling `begin` before each; what fails becomes an error of its own item."""
    items = Items(
        np.array([entry.ordinal for entry in entries], np.int64),
        [entry.source for entry in entries],
        [entry.name for entry in entries],
        np.zeros((len(entries), 28, 28), np.uint8),
        np.array([entry.label for entry in entries], np.int8),
    )
    for position, entry in enumerate(entries):
        begin()
        try:
            _decode_into(items, position, entry, max_pixels)
        except ServingError as error:
            items.errors[position] = str(error)
        except OSError as error:
            items.errors[position] = (error.strerror or "unreadable").lower()
        except Exception as error:  # a decoder's bug on one picture is no reason to lose the others
            items.errors[position] = f"the decoder failed: {type(error).__name__}"
    return items


def _decode_into(items: Items, position: int, entry: Entry, max_pixels: int) -> None:
    from serving.preprocess import prepare

    if entry.error:
        raise ServingError(entry.error)
    data = entry.data if isinstance(entry.data, bytes) else read_file(entry.data, PICTURE_BYTES)
    if not data:
        raise ServingError("empty")
    prepared = prepare(data, max_pixels)
    items.images[position] = prepared.image
    if prepared.reasons:
        items.reasons[position] = tuple(prepared.reasons)
    if prepared.blank:
        items.blank.add(position)


def read_file(path: Path, limit_bytes: int) -> bytes:
    """Return the bytes of a file.

    Raises:
        ServingError: more than `limit_bytes`.
        OSError: unreadable.
    """
    with path.open("rb", buffering=0) as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise ServingError(f"more than {limit_bytes} bytes")
    return data
