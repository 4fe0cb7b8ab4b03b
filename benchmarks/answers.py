"""Whether a server reads the digits with which it is timed: its answer, in any form, beside bare ONNX Runtime's."""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.cases import Answer, Case, test_images
from benchmarks.floor import NAMES, open_session
from benchmarks.servers import Server

# As much as a GPU's rounding may change a probability, and far less than another digit does.
TOLERANCE = 0.01

Probabilities = npt.NDArray[np.float32]


@cache
def expected(model: str, count: int) -> Probabilities:
    """Return a model's probabilities of the first `count` digits of the test set, shape (count, 10)."""
    found: Probabilities = open_session(model, 1).run(NAMES, {"images": test_images()[:count]})[1]
    return found


async def check(server: Server, case: Case) -> None:
    """Send a request once.

    Raises:
        RuntimeError: the answer does not hold the model's probabilities.
    """
    if not holds(await case.ask(server.ports), expected(case.model, case.images)):
        raise RuntimeError("its answer does not hold the model's probabilities")


def holds(answer: Answer, probabilities: Probabilities) -> bool:
    """Tell whether an answer holds these probabilities, shape (N, 10), in JSON, as raw floats or as gRPC values."""
    wanted = probabilities.ravel()
    return any(np.allclose(found, wanted, rtol=0, atol=TOLERANCE) for found in _numbers(answer, wanted.size))


def _numbers(answer: Answer, size: int) -> Iterator[npt.NDArray[Any]]:
    """Yield so many numbers each time that so many of them may stand together in an answer."""
    if not isinstance(answer, bytes):
        raw = [np.frombuffer(each, "<f4") for each in answer.raw_output_contents]
        found = [*raw, *(np.array(each.contents.fp32_contents) for each in answer.outputs)]
    else:
        try:
            found = list(_lists(json.loads(answer)))
        except ValueError:  # raw floats: the last tensor, or the one before it
            ends = (len(answer), len(answer) - 4 * size)
            found = [np.frombuffer(answer[end - 4 * size : end], "<f4") for end in ends if end >= 4 * size]
    yield from (each for each in found if each.size == size)


def _lists(value: object) -> Iterator[npt.NDArray[Any]]:
    """Yield every list in JSON that holds numbers alone, those of nested lists one after the other."""
    parts = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    if isinstance(value, list):
        try:
            yield np.array(value, np.float64).ravel()
        except (TypeError, ValueError):  # something else is in it, or lists of unequal lengths
            pass
        else:
            return
    for part in parts:
        yield from _lists(part)
