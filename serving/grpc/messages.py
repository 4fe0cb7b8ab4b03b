"""Inference requests and answers as protobuf messages.

Must not know: models, how a request is run.
Source: Open Inference Protocol v2; Triton's and KServe's clients.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from serving.errors import MOST_SHOWN, InvalidInput
from serving.grpc.stubs import inference_pb2 as pb
from serving.heavy import INLINE_BYTES, pieces
from serving.protocol import outputs
from serving.protocol.messages import Images, InferenceRequest, InferenceResponse, OutputTensor, TensorHeader
from serving.protocol.parameters import read_timeout
from serving.protocol.tensors import INPUT, PIECE_VALUES, check_count, check_header, raw_bytes, read_list, read_raw

# Where the elements of a tensor are if they do not come as raw bytes.
CONTENTS = {"UINT8": "uint_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents"}


def text_bytes(message: pb.ModelInferRequest) -> int:
    """Return how many values a request holds that are not raw; each takes as long as a byte of JSON.

    A large raw tensor, which may have to be converted, counts, too.
    """
    if len(message.inputs) != 1:
        return 0
    contents, size_bytes = message.inputs[0].contents, sum(map(len, message.raw_input_contents))
    values = sum(len(getattr(contents, field)) for field in CONTENTS.values())
    return values + (size_bytes if size_bytes > INLINE_BYTES else 0)


def read_request(message: pb.ModelInferRequest, max_images: int) -> InferenceRequest:
    """Return the request of a message.

    Raises:
        InvalidInput: says what was found and what was expected.
        TooLarge: more than `max_images`.
        Unsupported: the request asks for a part of the protocol that is not offered.
    """
    tensors, raw = message.inputs, message.raw_input_contents
    if len(tensors) != 1:
        raise InvalidInput(f"inputs: expected one, the tensor {INPUT!r}, got {len(tensors)}")
    if raw and len(raw) != 1:
        raise InvalidInput(f"raw_input_contents: expected one for each input, 1, got {len(raw)}")
    content = _read_tensor(tensors[0], raw[0] if raw else None, max_images)
    wanted = message.outputs
    chosen = outputs.choose((each.name, _parameters(each.parameters)) for each in wanted) if wanted else outputs.ALL
    return InferenceRequest(content, chosen, message.id, read_timeout(_parameters(message.parameters)))


def _parameters(parameters: Mapping[str, pb.InferParameter]) -> dict[str, Any]:
    """Return parameters as plain values; one without any is left out."""
    values: dict[str, Any] = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice:
            values[name] = getattr(parameter, choice)
    return values


def _read_tensor(
    tensor: pb.ModelInferRequest.InferInputTensor, raw: bytes | None, max_images: int
) -> Images | list[bytes]:
    header = TensorHeader(tensor.name, tensor.datatype, tuple(tensor.shape[: MOST_SHOWN + 1]))
    check_header(header, max_images)
    outputs.refuse_shared_memory(tensor.parameters)
    filled = [field.name for field, _ in tensor.contents.ListFields()] if tensor.HasField("contents") else []
    if raw is not None:
        if filled:
            raise InvalidInput(f"input {INPUT!r}: expected either contents or raw_input_contents, got both")
        return read_raw(header, raw)
    return _read_contents(header, tensor.contents, filled)


def _read_contents(header: TensorHeader, contents: pb.InferTensorContents, filled: list[str]) -> Images | list[bytes]:
    field = CONTENTS.get(header.datatype)
    if field is None:
        raise InvalidInput(f"input {INPUT!r}: {header.datatype} travels in raw_input_contents only")
    if filled not in ([], [field]):
        raise InvalidInput(f"input {INPUT!r}: expected {field} for {header.datatype}, got {', '.join(filled)}")
    values = _read_values(getattr(contents, field))
    if header.datatype == "BYTES":
        return check_count(values, header.shape[0])
    return read_list(header, values, only_numbers=True)


def _read_values(field: Sequence[Any]) -> list[Any]:
    values: list[Any] = []
    for piece in pieces(field, PIECE_VALUES):
        values += piece
    return values


def write_response(response: InferenceResponse) -> pb.ModelInferResponse:
    """Return the message of an answer; tensors are raw bytes, the only form that every client reads."""
    return pb.ModelInferResponse(
        model_name=response.model_name,
        model_version=response.model_version,
        id=response.id,
        outputs=[_describe(output) for output in response.outputs],
        raw_output_contents=[raw_bytes(output) for output in response.outputs],
    )


def _describe(output: OutputTensor) -> pb.ModelInferResponse.InferOutputTensor:
    return pb.ModelInferResponse.InferOutputTensor(name=output.name, datatype=output.datatype, shape=output.shape)
