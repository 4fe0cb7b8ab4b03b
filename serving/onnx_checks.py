"""What a graph may hold, read from its bytes before anything runs it.

Must not know: ONNX Runtime, manifests, how the graph was made.
"""

from collections.abc import Iterator
from typing import Literal

import onnx
from google.protobuf.message import DecodeError, Message

from serving.errors import ModelRejected
from serving.manifest import TensorSpec

# The operators of a graph and of its model-local functions come from here; "" and "ai.onnx" are the same domain.
DEFAULT_DOMAINS = ("", "ai.onnx")

DTYPES: dict[int, Literal["uint8", "float32"]] = {onnx.TensorProto.UINT8: "uint8", onnx.TensorProto.FLOAT: "float32"}
TYPE_NAMES = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}

# Operators that draw random numbers; a network that is not being trained needs none.
RANDOM_OPERATORS = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}

# The input of Dropout that switches it on, since opset 12.
TRAINING_MODE_INPUT = 2


def parse(model: bytes) -> onnx.ModelProto:
    """Return the graph of a file.

    Raises:
        ModelRejected: the bytes are no ONNX model, or a text in it is not UTF-8.
    """
    try:
        parsed = onnx.load_model_from_string(model)
    except DecodeError as error:
        raise ModelRejected("format", "bytes that are no ONNX model", "an ONNX model") from error
    if not parsed.graph.node:
        raise ModelRejected("format", "a model without operators", "an ONNX model")
    if broken := _broken_text(parsed):
        raise ModelRejected("format", f"{broken!r}, which is no UTF-8", "an ONNX model")
    return parsed


def _broken_text(model: onnx.ModelProto) -> bytes | None:
    """Return a name or another text of the file that is not UTF-8, which protobuf hands out as bytes, or None."""
    for message in _messages(model):
        for field, value in message.ListFields():
            if field.type != field.TYPE_STRING:
                continue
            texts = [value] if isinstance(value, str | bytes) else value
            if broken := next((text for text in texts if isinstance(text, bytes)), None):
                return broken
    return None


def _messages(message: Message) -> Iterator[Message]:
    """Yield `message` and every message inside it, whatever field holds it."""
    stack = [message]
    while stack:
        current = stack.pop()
        yield current
        for field, value in current.ListFields():
            if field.message_type is None:
                continue
            stack.extend([value] if isinstance(value, Message) else value)


def external_tensors(model: onnx.ModelProto) -> list[str]:
    """Return the tensors whose data lie outside the file, as `NAME in LOCATION`.

    It looks at every tensor of the file, so that initializers, sparse initializers, tensors in attributes, in
    subgraphs and in the attribute defaults of functions are all seen.
    """
    found = []
    for message in _messages(model):
        if not isinstance(message, onnx.TensorProto):
            continue
        if message.data_location == onnx.TensorProto.EXTERNAL or message.external_data:
            where = next((entry.value for entry in message.external_data if entry.key == "location"), "no location")
            found.append(f"{message.name or 'a tensor'} in {where}")
    return found


def foreign_operators(model: onnx.ModelProto) -> list[str]:
    """Return the operators and imported domains outside ONNX's default domain, as `DOMAIN.OPERATOR` or `DOMAIN`."""
    found = []
    for message in _messages(model):
        if isinstance(message, onnx.NodeProto | onnx.FunctionProto) and message.domain not in DEFAULT_DOMAINS:
            name = message.op_type if isinstance(message, onnx.NodeProto) else message.name
            found.append(f"{message.domain}.{name}")
        elif isinstance(message, onnx.OperatorSetIdProto) and message.domain not in DEFAULT_DOMAINS:
            found.append(message.domain)
    return found


def training_operators(model: onnx.ModelProto) -> list[str]:
    """Return the operators that belong to training, as `OPERATOR NAME`.

    Those are a Dropout whose third input is given and not constantly false, a BatchNormalization with
    `training_mode` = 1, every operator that draws random numbers, and the file's own training information.
    """
    constants = _constants(model)
    nodes = [message for message in _messages(model) if isinstance(message, onnx.NodeProto)]
    found = [f"{node.op_type} {node.name}".strip() for node in nodes if _is_training(node, constants)]
    return found + ["training_info"] * len(model.training_info)


def _constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    constants: dict[str, onnx.TensorProto] = {}
    for message in _messages(model):
        if isinstance(message, onnx.GraphProto):
            constants.update((tensor.name, tensor) for tensor in message.initializer)
        elif isinstance(message, onnx.NodeProto) and message.op_type == "Constant":
            values = [entry.t for entry in message.attribute if entry.name == "value"]
            # A broken file may have one without an output.
            constants.update(zip(message.output, values, strict=False))
    return constants


def _is_training(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    if node.op_type in RANDOM_OPERATORS:
        return True
    if node.op_type == "BatchNormalization":
        return any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
    if node.op_type != "Dropout" or len(node.input) <= TRAINING_MODE_INPUT or not node.input[TRAINING_MODE_INPUT]:
        return False
    mode = constants.get(node.input[TRAINING_MODE_INPUT])
    return mode is None or bool(onnx.numpy_helper.to_array(mode).any())


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    dtype = DTYPES.get(tensor.elem_type)
    if dtype is None:
        found = TYPE_NAMES.get(tensor.elem_type, str(tensor.elem_type))
        raise ModelRejected("tensors", f"{value.name} of type {found}", "uint8 or float32")
    shape = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in tensor.shape.dim]
    return TensorSpec(name=value.name, dtype=dtype, shape=shape)


def tensor_specs(model: onnx.ModelProto) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Return the inputs and the outputs of the graph; initializers that are listed as inputs are none.

    Raises:
        ModelRejected: a tensor has another type than uint8 or float32.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [_spec(value) for value in model.graph.input if value.name not in weights]
    return inputs, [_spec(value) for value in model.graph.output]


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the default operator set that the graph imports, 0 if it imports none."""
    return max((entry.version for entry in model.opset_import if entry.domain in DEFAULT_DOMAINS), default=0)


def describe(tensors: list[TensorSpec]) -> str:
    """Return tensors in one line: `logits float32 [batch,10], probabilities float32 [batch,10]`."""
    return ", ".join(f"{spec.name} {spec.dtype} [{','.join(map(str, spec.shape))}]" for spec in tensors)
