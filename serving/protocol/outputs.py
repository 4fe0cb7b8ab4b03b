"""Which outputs a caller wants, and the tensors of the answer.

Must not know: how the answer travels.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.errors import InvalidInput, Unsupported, shown
from serving.protocol.messages import OutputTensor, RequestedOutput
from serving.runtime import OUTPUTS, Outputs

ALL = tuple(RequestedOutput(name) for name in OUTPUTS)
ALL_BINARY = tuple(RequestedOutput(name, binary=True) for name in OUTPUTS)


def choose(wanted: Iterable[tuple[str, Mapping[str, Any]]], *, binary: bool = False) -> tuple[RequestedOutput, ...]:
    """Return the outputs that a caller wants, in its order; all of them if it names none.

    Args:
        wanted: name and parameters of each.
        binary: for outputs that do not say themselves whether they travel as bytes.

    Raises:
        InvalidInput: an unknown or repeated name, or a parameter of the wrong kind.
        Unsupported: an output is to go to shared memory.
    """
    chosen: dict[str, RequestedOutput] = {}
    for name, parameters in wanted:
        if name in chosen:  # at once: a message may name three million
            raise InvalidInput(f"outputs: {name!r} is named twice")
        chosen[name] = _choose_one(name, parameters, binary)
    return tuple(chosen.values()) or (ALL_BINARY if binary else ALL)


def _choose_one(name: str, parameters: Mapping[str, Any], binary: bool) -> RequestedOutput:
    if name not in OUTPUTS:
        raise InvalidInput(f"outputs: there is no {shown(name)}; there are: {', '.join(OUTPUTS)}")
    refuse_shared_memory(parameters)
    binary = parameters.get("binary_data", binary)
    if not isinstance(binary, bool):
        raise InvalidInput(f"output {name!r}: parameter binary_data is {shown(binary)}, expected true or false")
    classes = parameters.get("classification", 0)
    if type(classes) is not int or classes < 0:
        raise InvalidInput(
            f"output {name!r}: parameter classification is {shown(classes)}, expected a whole number, 0 for none"
        )
    return RequestedOutput(name, classes, binary)


def refuse_shared_memory(parameters: Mapping[str, Any]) -> None:
    """Refuse a tensor that lies in a memory region of another process."""
    if "shared_memory_region" in parameters:
        raise Unsupported("shared memory is not offered: send the tensor's data in the request")


def build(outputs: Outputs, chosen: Iterable[RequestedOutput], labels: Sequence[str]) -> list[OutputTensor]:
    """Return the tensors of the answer.

    Args:
        outputs: logits and probabilities, float32 (N, 10).
        chosen: which of them, and how.
        labels: text of each of the ten classes.
    """
    return [_build_one(getattr(outputs, output.name), output, labels) for output in chosen]


def _build_one(values: npt.NDArray[np.float32], output: RequestedOutput, labels: Sequence[str]) -> OutputTensor:
    if output.classes:
        k = min(output.classes, values.shape[1])
        classes = [text for row in values for text in _classify(row, k, labels)]
        return OutputTensor(output.name, "BYTES", (len(values), k), classes, output.binary)
    return OutputTensor(output.name, "FP32", values.shape, values, output.binary)


def _classify(row: npt.NDArray[np.float32], k: int, labels: Sequence[str]) -> list[bytes]:
    """Return the k largest values as `value:index:label`, the form of Triton's classification extension."""
    best = np.argsort(-row, kind="stable")[:k].tolist()
    return [f"{row[index]:.6f}:{index}:{labels[index]}".encode() for index in best]
