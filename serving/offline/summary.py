"""What a run comes to: counts, accuracy and confusion, speed, model.

Must not know: how rows are stored.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]

from serving.offline.arrow import validity_of, values_of


def _zeros() -> npt.NDArray[np.int64]:
    return np.zeros((10, 10), np.int64)


@dataclass
class Summary:
    """Counts over all rows of an output.

    Attributes:
        rows: all of them.
        errors: items that could not be scored.
        refused: items that were scored, or were blank, and are not accepted.
        labelled: items without an error whose digit is known.
        confusion: int64, shape (10, 10); row = known digit, column = predicted digit. A blank item is in none.
    """

    rows: int = 0
    errors: int = 0
    refused: int = 0
    labelled: int = 0
    confusion: npt.NDArray[np.int64] = field(default_factory=_zeros)

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the rows of a batch of `rows.SCHEMA`."""
        fine = batch.column("error").is_null()
        self.rows += batch.num_rows
        self.errors += batch.num_rows - fine.true_count
        self.refused += pc.and_not(fine, batch.column("accepted")).true_count
        self.labelled += pc.and_(fine, batch.column("label").is_valid()).true_count
        label, digit = batch.column("label"), batch.column("digit")
        both = validity_of(label) & validity_of(digit)
        np.add.at(self.confusion, (values_of(label)[both], values_of(digit)[both]), 1)

    @property
    def accuracy(self) -> float | None:
        """Right digits among the labelled items, 0 to 1; a blank item is a wrong one; None without labels."""
        return int(self.confusion.trace()) / self.labelled if self.labelled else None

    def as_json(self) -> dict[str, Any]:
        """Return the counts as JSON's types."""
        return {
            "rows": self.rows,
            "errors": self.errors,
            "refused": self.refused,
            "labelled": self.labelled,
            "accuracy": self.accuracy,
            "confusion": self.confusion.tolist() if self.labelled else None,
        }

    def as_text(self) -> str:
        """Return the counts as one line, and the confusion below it where labels are known."""
        line = f"{self.rows:,} rows, {self.errors:,} errors, {self.refused:,} refused"
        if self.accuracy is None:
            return f"{line}\n"
        rows = enumerate(self.confusion.tolist())
        counts = "\n".join(f"{digit:>5} " + "".join(f"{count:>7}" for count in row) for digit, row in rows)
        header = "label " + "".join(f"{digit:>7}" for digit in range(10))
        return f"{line}, accuracy {self.accuracy:.2%} of {self.labelled:,}\n{header}\n{counts}\n"
