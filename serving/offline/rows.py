"""From items to rows: the one scorer behind every engine.

Must not know: input formats, output formats.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa  # type: ignore[import-untyped]

from serving.acceptance import judge
from serving.manifest import Acceptance
from serving.offline.arrow import booleans, lists_of_ten, lists_of_texts, numbers, texts
from serving.offline.items import NO_LABEL, Images, Items
from serving.reasons import BLANK

if TYPE_CHECKING:
    from serving.runtime import Outputs

SCHEMA = pa.schema(
    [
        ("ordinal", pa.int64()),
        ("source", pa.string()),
        ("item", pa.string()),
        ("digit", pa.int8()),
        ("confidence", pa.float32()),
        ("accepted", pa.bool_()),
        ("reasons", pa.list_(pa.string())),
        ("label", pa.int8()),
        ("error", pa.string()),
        ("probabilities", pa.list_(pa.float32(), 10)),
    ]
)

# Images of one run of the model. Measured with mnist-cnn, one thread: 32 and 64 are the fastest; 256 takes 1.5 times
# as long, since the activations leave the second-level cache.
BATCH = 64

Run = Callable[[Images], "Outputs"]


class Scorer:
    """Turns items into rows.

    Args:
        run: images uint8 (N, 28, 28) -> logits and probabilities.
        acceptance: when a result counts as known.
    """

    def __init__(self, run: Run, acceptance: Acceptance):
        self._run, self._acceptance = run, acceptance

    def score(self, items: Items) -> pa.RecordBatch:
        """Return one row for every item, in order, of `SCHEMA`."""
        count = len(items.names)
        has_error = np.zeros(count, bool)
        has_error[list(items.errors)] = True
        empty = has_error.copy()
        empty[list(items.blank)] = True
        probabilities = np.zeros((count, 10), np.float32)
        probabilities[~empty] = self._probabilities(items.images[~empty])
        digits = probabilities.argmax(axis=1).astype(np.int8)
        confidence = probabilities.max(axis=1)
        accepted, reasons = self._judge(items, confidence)
        columns = [
            numbers(items.ordinals),
            texts([items.sources] * count if isinstance(items.sources, str) else items.sources),
            texts(items.names),
            numbers(digits, ~empty),
            numbers(confidence, ~empty),
            booleans(np.array(accepted, bool)),
            lists_of_texts(reasons),
            numbers(items.labels, items.labels != NO_LABEL),
            texts([items.errors.get(position, "") for position in range(count)], has_error),
            lists_of_ten(probabilities, ~empty),
        ]
        return pa.record_batch(columns, schema=SCHEMA)

    def _judge(self, items: Items, confidence: npt.NDArray[np.float32]) -> tuple[list[bool], list[list[str]]]:
        accepted, reasons = [], []
        for position, value in enumerate(confidence.tolist()):
            known, against = judge(value, items.reasons.get(position, ()), self._acceptance)
            if position in items.errors:
                known, against = False, []
            elif position in items.blank:
                known, against = False, [BLANK]
            accepted.append(known)
            reasons.append(against)
        return accepted, reasons

    def _probabilities(self, images: Images) -> npt.NDArray[np.float32]:
        if not len(images):
            return np.empty((0, 10), np.float32)
        return np.concatenate([self._run(images[at : at + BATCH]).probabilities for at in range(0, len(images), BATCH)])
