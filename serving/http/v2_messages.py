"""Inference requests and answers as HTTP bodies: JSON, with raw tensors behind it where the caller wants that.

Must not know: models, how a request is run.
Source: Open Inference Protocol v2, and Triton's binary tensor data extension.
"""

import base64
import binascii
import re
from typing import Any

import orjson

from serving.errors import InvalidInput, TooLarge, shown
from serving.heavy import INLINE_BYTES
from serving.http.strict_json import read_json
from serving.limits import Limits
from serving.protocol import outputs
from serving.protocol.messages import (
    Images,
    InferenceRequest,
    InferenceResponse,
    OutputTensor,
    RequestedOutput,
    TensorHeader,
)
from serving.protocol.parameters import check_values, kind, read_flag, read_timeout
from serving.protocol.tensors import INPUT, check_count, check_header, raw_bytes, read_list, read_raw

JSON_BYTES = "inference-header-content-length"
JSON, OCTETS = "application/json", "application/octet-stream"

# Of the JSON before a tensor's bytes.
LENGTH = re.compile("[0-9]{1,18}")

# It is sent back: of 33 MB, which 32 KB unpack to, so are 33 MB.
LONGEST_ID = 524_288

# What a body without any JSON stands for: the model's one input, for a batch of one.
RAW_BODY = TensorHeader(INPUT, "UINT8", (1, 28, 28))


def text_bytes(body: bytes, json_bytes: str | None) -> int:
    """Return how much of a body has to be parsed; a large tensor, which may have to be converted, counts as text.

    Args:
        body: unpacked.
        json_bytes: see `read_request`.
    """
    if json_bytes is None or len(body) > INLINE_BYTES:
        return len(body)
    # What is no number is refused at once.
    return int(json_bytes) if LENGTH.fullmatch(json_bytes) else 0


def read_request(body: bytes, json_bytes: str | None, limits: Limits) -> InferenceRequest:
    """Return the request of a body.

    Args:
        body: unpacked.
        json_bytes: value of the header Inference-Header-Content-Length.
        limits: of one request.

    Raises:
        InvalidInput: names the field, what was found and what was expected.
        TooLarge: more than the limits allow.
        Unsupported: the request asks for a part of the protocol that is not offered.
    """
    if json_bytes is None:
        return _read(body, b"", limits)
    length = _read_length(json_bytes, len(body))
    if not length:
        return InferenceRequest(read_raw(RAW_BODY, body), outputs.ALL_BINARY)
    return _read(body[:length], memoryview(body)[length:], limits)


def _read_length(text: str, limit: int) -> int:
    if not LENGTH.fullmatch(text):
        raise InvalidInput(f"Inference-Header-Content-Length: expected a number of bytes, got {text[:40]!r}")
    if int(text) > limit:
        raise InvalidInput(f"Inference-Header-Content-Length: {text} bytes of JSON, but the body has {limit}")
    return int(text)


def _read(head: bytes, blobs: bytes | memoryview, limits: Limits) -> InferenceRequest:
    root, only_numbers = read_json(head, limits)
    if not isinstance(root, dict):
        raise InvalidInput(f"expected an object with inputs, got {kind(root)}")
    request_id = root.get("id")
    if not isinstance(request_id, str | None):
        raise InvalidInput(f"id: expected a string, got {kind(request_id)}")
    if request_id and len(request_id) > LONGEST_ID:
        raise TooLarge(f"id: {len(request_id)} characters; the limit is {LONGEST_ID}")
    parameters = check_values(root.get("parameters"), "parameters")
    content = _read_inputs(root.get("inputs"), blobs, only_numbers, limits.images)
    binary = read_flag(parameters, "binary_data_output")
    chosen = _read_outputs(root.get("outputs"), binary)
    return InferenceRequest(content, chosen, request_id, read_timeout(parameters))


def _read_inputs(inputs: Any, blobs: bytes | memoryview, only_numbers: bool, max_images: int) -> Images | list[bytes]:
    if not isinstance(inputs, list) or len(inputs) != 1:
        found = f"{len(inputs)} of them" if isinstance(inputs, list) else kind(inputs)
        raise InvalidInput(f"inputs: expected a list of one object, the tensor {INPUT!r}, got {found}")
    tensor = inputs[0]
    if not isinstance(tensor, dict):
        raise InvalidInput(f"inputs[0]: expected an object, got {kind(tensor)}")
    header = _read_header(tensor)
    check_header(header, max_images)
    parameters = check_values(tensor.get("parameters"), "inputs[0].parameters")
    outputs.refuse_shared_memory(parameters)
    if "binary_data_size" in parameters:
        _check_blob(parameters["binary_data_size"], blobs, "data" in tensor)
        return read_raw(header, blobs)
    if blobs:
        raise InvalidInput(f"{len(blobs)} bytes follow the JSON, but no input has the parameter binary_data_size")
    data = tensor.get("data")
    if not isinstance(data, list):
        raise InvalidInput(f"inputs[0].data: expected a list, got {kind(data)}")
    if header.datatype == "BYTES":
        return check_count([_decode(index, text) for index, text in enumerate(data)], header.shape[0])
    if header.datatype == "FP16":
        raise InvalidInput("inputs[0].datatype: FP16 travels as binary data only; send FP32, or the bytes")
    return read_list(header, data, only_numbers=only_numbers)


def _read_header(tensor: dict[str, Any]) -> TensorHeader:
    name, datatype, shape = tensor.get("name"), tensor.get("datatype"), tensor.get("shape")
    for field, value in (("name", name), ("datatype", datatype)):
        if not isinstance(value, str):
            raise InvalidInput(f"inputs[0].{field}: expected a string, got {kind(value)}")
    if not isinstance(shape, list) or not all(type(size) is int for size in shape):
        raise InvalidInput("inputs[0].shape: expected a list of whole numbers")
    return TensorHeader(name, datatype, tuple(shape))  # type: ignore[arg-type]


def _check_blob(size: Any, blobs: bytes | memoryview, has_data: bool) -> None:
    if has_data:
        raise InvalidInput("inputs[0]: expected either data or the parameter binary_data_size, got both")
    if type(size) is not int or size < 0:
        raise InvalidInput(f"inputs[0].parameters.binary_data_size: expected a number of bytes, got {shown(size)}")
    if size != len(blobs):
        raise InvalidInput(
            f"inputs[0].parameters.binary_data_size is {size}, but {len(blobs)} bytes follow the JSON, whose length "
            "is the header Inference-Header-Content-Length"
        )


def _decode(index: int, text: Any) -> bytes:
    """Return the picture that an element holds as base64, the only form in which JSON can carry it."""
    if not isinstance(text, str):
        raise InvalidInput(f"inputs[0].data[{index}]: expected a picture as base64, got {kind(text)}")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(
            f"inputs[0].data[{index}]: expected a picture as base64 (URLs are not accepted): {error}"
        ) from error


def _read_outputs(wanted: Any, binary: bool) -> tuple[RequestedOutput, ...]:
    if wanted is None:
        return outputs.ALL_BINARY if binary else outputs.ALL
    if not isinstance(wanted, list):
        raise InvalidInput(f"outputs: expected a list, got {kind(wanted)}")
    pairs = []
    for index, output in enumerate(wanted):
        if not isinstance(output, dict) or not isinstance(output.get("name"), str):
            raise InvalidInput(f"outputs[{index}]: expected an object with a name")
        pairs.append((output["name"], check_values(output.get("parameters"), f"outputs[{index}].parameters")))
    return outputs.choose(pairs, binary=binary)


def write_response(response: InferenceResponse) -> tuple[bytes, dict[str, str]]:
    """Return the body of an answer and its headers."""
    blobs: list[bytes] = []
    head: dict[str, Any] = {"model_name": response.model_name, "model_version": response.model_version}
    if response.id is not None:
        head["id"] = response.id
    head["outputs"] = [_describe(output, blobs) for output in response.outputs]
    text = orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)
    if not any(output.binary for output in response.outputs):
        return text, {"content-type": JSON}
    return b"".join((text, *blobs)), {"content-type": OCTETS, "inference-header-content-length": str(len(text))}


def _describe(output: OutputTensor, blobs: list[bytes]) -> dict[str, Any]:
    """Return an output's JSON; if it is binary its bytes go to the end of `blobs`."""
    described: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": output.shape}
    if output.binary:
        blobs.append(raw_bytes(output))
        described["parameters"] = {"binary_data_size": len(blobs[-1])}
    elif isinstance(output.values, list):
        described["data"] = [element.decode() for element in output.values]
    else:
        described["data"] = output.values.ravel()
    return described
