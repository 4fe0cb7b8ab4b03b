"""What a caller asks and what it gets, in the terms of the Open Inference Protocol v2.

Must not know: how either travels.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
Parameter = bool | int | float | str


class TensorHeader(NamedTuple):
    """An input tensor as the caller declares it, not yet believed."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """One output that the caller wants.

    Attributes:
        name: `logits` or `probabilities`.
        classes: 0, or how many of the largest values to give as `value:index:label`.
        binary: over HTTP, whether as bytes behind the JSON.
    """

    name: str
    classes: int = 0
    binary: bool = False


@dataclass(slots=True)
class InferenceRequest:
    """A validated request.

    Attributes:
        content: uint8 images (N, 28, 28), 0 = paper, 255 = ink, N >= 0; or N encoded pictures.
        outputs: in the order of the answer.
        id: to be given back as it is; None where the caller gave none.
        timeout_s: the caller's patience in seconds, None for the server's own.
    """

    content: Images | list[bytes]
    outputs: tuple[RequestedOutput, ...]
    id: str | None = None
    timeout_s: float | None = None


@dataclass(slots=True)
class OutputTensor:
    """An output of an answer; `values` is float32 (FP32) or the elements of a BYTES tensor, row-major."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: npt.NDArray[np.float32] | list[bytes]
    binary: bool


@dataclass(slots=True)
class InferenceResponse:
    """The answer to an `InferenceRequest`."""

    model_name: str
    model_version: str
    id: str | None
    outputs: list[OutputTensor]
