"""A trained network as one ONNX file that serving reads: raw pixels in, logits and calibrated probabilities out.

Must not know: how good the network is; `training.verify` finds out.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from google.protobuf.message import Message
from torch import Tensor, nn

from serving import onnx_checks
from serving.errors import ServingError
from serving.manifest import INPUTS, OUTPUTS

# What the exporter makes without a conversion, and far below what the oldest onnxruntime that this project allows
# reads: 1.28.0, asked with files of ever larger versions, takes operator sets up to 26 and IR versions up to 13.
# Operator set 18 and IR version 10 are read by onnxruntime 1.18 and whatever came after it.
OPSET = 18
IR_VERSION = 10

# A batch of one would be taken for a constant.
EXAMPLE_BATCH = 2


class ExportFailed(ServingError):
    """The network cannot be written as the graph that serving needs."""


class CalibratedNetwork(nn.Module):
    """The graph that is served: a network, its logits, and their softmax at a temperature.

    Args:
        network: images uint8 (N, 28, 28) to logits float32 (N, 10).
        temperature: what the logits are divided by before the softmax, > 0.

    Raises:
        ExportFailed: the temperature is not a positive number.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", for the temperature.
    """

    def __init__(self, network: nn.Module, temperature: float):
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ExportFailed(f"temperature {temperature:g}: expected a positive number")
        self.network, self.temperature = network, temperature

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Classify: images uint8 (N, 28, 28) to logits and probabilities, float32 (N, 10)."""
        logits = self.network(images)
        return logits, torch.softmax(logits / self.temperature, dim=-1)


def export(model: nn.Module, path: Path, temperature: float = 1.0) -> None:
    """Write a network to `path` as one ONNX file; the network is left as it was.

    Equal weights give equal bytes, and the file says nothing about the machine that wrote it.

    Args:
        model: images uint8 (N, 28, 28) to logits float32 (N, 10), on the CPU, in whichever mode.
        path: the file to write.
        temperature: see `CalibratedNetwork`.

    Raises:
        ExportFailed: the exporter cannot follow the network, or fixes its batch size without a word.
    """
    graph = to_graph(CalibratedNetwork(model, temperature), [spec.name for spec in OUTPUTS])
    for found, expected in zip(onnx_checks.tensor_specs(graph), (INPUTS, OUTPUTS), strict=True):
        if found != expected:
            described, wanted = onnx_checks.describe(found), onnx_checks.describe(expected)
            raise ExportFailed(f"torch's exporter made a graph with {described}, expected {wanted}")
    path.write_bytes(graph.SerializeToString(deterministic=True))


def to_graph(network: nn.Module, output_names: Sequence[str]) -> onnx.ModelProto:
    """Return the exporter's graph of a network in evaluation mode; the network is left as it was.

    Args:
        network: images uint8 (N, 28, 28) to as many tensors as there are names, on the CPU, in whichever mode.
        output_names: of the graph's outputs, in the network's order.

    Raises:
        ExportFailed: the exporter cannot follow the network.
    """
    modes = [(module, module.training) for module in network.modules()]
    example = torch.zeros(EXAMPLE_BATCH, 28, 28, dtype=torch.uint8)
    try:
        program = torch.onnx.export(
            network.eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[spec.name for spec in INPUTS],
            output_names=list(output_names),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        cause = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ExportFailed(f"torch's exporter cannot export this network: {cause}") from error
    finally:
        for module, training in modes:
            module.training = training
    assert program is not None
    graph = program.model_proto
    graph.ir_version = IR_VERSION
    _strip(graph)
    return graph


def _strip(message: Message) -> None:
    """Remove what the exporter notes for its own debugging: stack traces with paths, source text, inferred shapes."""
    if isinstance(message, onnx.GraphProto):
        message.ClearField("value_info")
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for inner in [value] if isinstance(value, Message) else value:
                _strip(inner)
