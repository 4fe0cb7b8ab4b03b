"""Which columns of a table are the pixels, in which order, and which is the label; numbers written as text.

Must not know: how a table is stored.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.errors import InvalidInput
from serving.offline.pixels import PIXELS, to_labels

LABEL_NAMES = frozenset({"label", "labels", "class", "target", "y", "digit"})

# pixel0, pixel_1, px3, p4, x5, 6: Kaggle, OpenML, scikit-learn and pandas.
_NUMBERED = re.compile(r"(?:pixels?|px|p|x|col|column|f|v)?[ _.-]?(\d{1,3})", re.IGNORECASE)
# 1x1 to 28x28: the widespread mnist_train.csv with a header.
_ROW_AND_COLUMN = re.compile(r"(\d{1,2})x(\d{1,2})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Columns:
    """Positions in a row: 784 pixels, row-major, and the label or None; and how many fields a row has."""

    pixels: tuple[int, ...]
    label: int | None
    count: int

    @property
    def read(self) -> list[int]:
        """The positions of the pixels and of the label, from left to right."""
        return sorted([*self.pixels, *([] if self.label is None else [self.label])])

    @property
    def unread(self) -> list[int]:
        """The positions of all others."""
        if self.count == len(self.pixels) + (self.label is not None):
            return []
        return sorted(set(range(self.count)).difference(self.read))


def find_columns(names: Sequence[str]) -> Columns:
    """Return the columns of a table with a header; other columns are not looked at.

    Raises:
        InvalidInput: the names do not give 784 pixels, numbered from 0 or from 1.
    """
    cleaned = list(map(_clean, names))
    labels = [position for position, name in enumerate(cleaned) if name.lower() in LABEL_NAMES]
    check_labels([cleaned[position] for position in labels])
    return Columns(find_pixels(names), labels[0] if labels else None, len(names))


def find_pixels(names: Sequence[str]) -> tuple[int, ...]:
    """Return the positions of the pixels, row-major.

    Raises:
        InvalidInput: as for `find_columns`.
    """
    numbers = {position: number for position, name in enumerate(names) if (number := _number(_clean(name))) is not None}
    ordered = sorted(numbers, key=numbers.__getitem__)
    found = [numbers[position] for position in ordered]
    if found not in (list(range(PIXELS)), list(range(1, PIXELS + 1))):
        raise InvalidInput(f"expected 784 pixel columns, pixel0 to pixel783 or pixel1 to pixel784, found {len(found)}")
    return tuple(ordered)


def check_labels(names: Sequence[str]) -> None:
    """Check that no more than one of a table's columns holds labels.

    Args:
        names: of the columns of labels.

    Raises:
        InvalidInput: there are several.
    """
    if len(names) > 1:
        raise InvalidInput(f"more than one column of labels: {', '.join(names)}")


def _clean(name: str) -> str:
    return name.strip().strip('"').strip()


def _number(name: str) -> int | None:
    if match := _ROW_AND_COLUMN.fullmatch(name):
        row, column = int(match[1]), int(match[2])
        return (row - 1) * 28 + column if 1 <= row <= 28 and 1 <= column <= 28 else None
    match = _NUMBERED.fullmatch(name)
    return int(match[1]) if match else None


def columns_without_header(count: int) -> Columns:
    """Return the columns of a table without a header: 784 pixels, or a label and 784 pixels.

    Raises:
        InvalidInput: another number of columns.
    """
    if count == PIXELS:
        return Columns(tuple(range(PIXELS)), None, count)
    if count == PIXELS + 1:
        return Columns(tuple(range(1, PIXELS + 1)), 0, count)
    raise InvalidInput(f"expected 784 pixel columns and at most one label before them, found {count} columns")


def parse_number(field: bytes) -> float:
    """Return the number that a field holds as text, perhaps in quotes.

    Raises:
        ValueError: it holds none.
    """
    if b"_" in field:  # Python's own notation: 1_000
        raise ValueError(field)
    return float(field.strip(b'" '))


def parse_label(field: bytes) -> float:
    """Return the number that a field of labels holds, NaN where it is empty; raises as `parse_number` does."""
    return parse_number(field) if field.strip(b'" ') else math.nan


def parse_labels(column: Any, name: str = "label") -> tuple[npt.NDArray[np.int8], dict[int, str]]:
    """Return labels of text, decimals or categories as `to_labels` does.

    Args:
        column: N values, bytes or of any type whose text is the label; None where there is none.
        name: of the column.
    """
    values, errors = np.full(len(column), np.nan), dict[int, str]()
    for position, value in enumerate(column):
        text = value if isinstance(value, bytes) else b"" if value is None else str(value).encode()
        try:
            values[position] = parse_label(text)
        except ValueError:
            errors[position] = f"{name} is {text.decode(errors='replace')[:20]!r}, expected a number"
    labels, out_of_range = to_labels(values)
    return labels, errors | out_of_range
