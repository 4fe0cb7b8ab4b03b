"""A network as an ONNX file that shows its inside: every layer and every kernel is an output.

Must not know: how good the network is. The file explains what `model.onnx` answers; it never answers in its place.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from serving.explain import LAYERS_KEY, LOGITS, LayerRecord
from serving.manifest import Check
from serving.runtime import INPUT, OnnxModel, open_on_cpu
from training.architectures import PartialConv2d
from training.export import to_graph
from training.shapes import describe, trace

# The runtime fuses other operators where every layer is an output, so sums differ by roundings of float32.
TOLERANCE = 1e-4

CHECK_BATCH = 500

# What leaves its input as it is when a network is not trained.
_TRANSPARENT = (nn.Dropout, nn.Dropout2d, nn.Identity)

Arrays = dict[str, npt.NDArray[np.float32]]


class Tap(NamedTuple):
    """Where a value is taken: what came into a call of a layer (0), or what came out (1)."""

    call: int
    side: int


@dataclass(frozen=True)
class Plan:
    """What the file holds: a description and a tap for each layer, and the kernels by name."""

    records: tuple[LayerRecord, ...]
    taps: tuple[Tap, ...]
    kernels: Arrays


class LayeredNetwork(nn.Module):
    """A network that gives the values at its taps beside its logits."""

    def __init__(self, network: nn.Module, taps: Sequence[Tap]):
        super().__init__()
        self.network, self.taps = network, tuple(taps)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Classify: images uint8 (N, 28, 28) to logits float32 (N, 10) and one tensor for each tap."""
        calls: list[tuple[Tensor, Tensor]] = []
        leaves = [module for module in self.network.modules() if not list(module.children())]
        hooks = [
            leaf.register_forward_hook(lambda _, before, after: calls.append((before[0], after))) for leaf in leaves
        ]
        try:
            logits = self.network(images)
        finally:
            for hook in hooks:
                hook.remove()
        return (logits, *(calls[tap.call][tap.side] for tap in self.taps))


class _Planner:
    """Follows one run of a network and notes where each value comes from."""

    def __init__(self, network: nn.Module):
        self.calls = trace(network)
        self.records: list[LayerRecord] = []
        self.taps: list[Tap] = []
        self.kernels: Arrays = {}
        # By identity: which layer made a tensor; the list of calls keeps every tensor alive meanwhile.
        self._made: dict[int, str | None] = {id(self.calls[0][2]): None}

    def plan(self) -> Plan:
        for number, (name, module, before, after) in enumerate(self.calls):
            if id(before) not in self._made:
                self._note_between(number, name, before)
            if isinstance(module, _TRANSPARENT):
                self._made[id(after)] = self._made[id(before)]
                continue
            self._note_layer(number, self._free(name), module, before, after)
        return Plan(tuple(self.records), tuple(self.taps), self.kernels)

    def _free(self, name: str) -> str:
        """Return a name that no layer has; a module that runs twice is two layers."""
        taken = {record.name for record in self.records}
        return next(free for free in (name, *(f"{name}#{n}" for n in range(2, 1000))) if free not in taken)

    def _note_between(self, number: int, name: str, before: Tensor) -> None:
        """Note a value that no layer made: a sum with a shortcut, or a function between two layers."""
        shape = list(before.shape[1:])
        between = LayerRecord(
            name=self._free(f"{name}.input"),
            kind="between layers",
            tensor=f"layer {len(self.records)}",
            source=None,
            geometry="",
            arithmetic="same shape",
            input_shape=shape,
            output_shape=shape,
            parameters=0,
            multiply_adds=0,
        )
        self._add(between, Tap(number, 0), before)

    def _note_layer(self, number: int, name: str, module: nn.Module, before: Tensor, after: Tensor) -> None:
        layer = describe(name, module)
        row = layer.row(name, tuple(before.shape[1:]))
        window: Any = getattr(layer, "window", None)
        last = number == len(self.calls) - 1
        record = LayerRecord(
            name=name,
            kind=row.kind,
            tensor=LOGITS if last else f"layer {len(self.records)}",
            source=self._made[id(before)],
            geometry=row.geometry,
            arithmetic=row.arithmetic,
            input_shape=list(row.input),
            output_shape=list(row.output),
            kernel_size=window and window.kernel,
            stride=window and window.stride,
            padding=window and window.padding,
            parameters=row.parameters,
            multiply_adds=row.multiply_adds,
            **self._note_kernels(name, module),
        )
        self._add(record, Tap(number, 1), after)

    def _note_kernels(self, name: str, module: nn.Module) -> dict[str, str | None]:
        names: dict[str, str | None] = {}
        for role, tensor in zip(("weight", "bias"), _kernels(module), strict=True):
            if tensor is not None:
                names[role] = f"{name}.{role}"
                self.kernels[f"{name}.{role}"] = tensor.detach().cpu().numpy().astype(np.float32)
        return names

    def _add(self, record: LayerRecord, tap: Tap, value: Tensor) -> None:
        self.records.append(record)
        self.taps.append(tap)
        self._made[id(value)] = record.name


def _dense(module: PartialConv2d) -> Tensor:
    """Return the kernels of a partial convolution, (out, in, height, width), 0 where two maps are not connected."""
    absent = module.weight.new_zeros(1, module.kernel_size, module.kernel_size)
    return torch.cat([module.weight, absent])[module.weight_index]


def _batch_norm(module: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return the factor and the summand of each map that batch normalisation comes to."""
    assert module.running_mean is not None
    assert module.running_var is not None
    factor = module.weight / torch.sqrt(module.running_var + module.eps)
    return factor, module.bias - module.running_mean * factor


def _kernels(module: nn.Module) -> tuple[Tensor | None, Tensor | None]:
    """Return what a layer multiplies with and what it adds."""
    if isinstance(module, PartialConv2d):
        return _dense(module), module.bias
    if isinstance(module, nn.BatchNorm2d):
        return _batch_norm(module)
    return getattr(module, "weight", getattr(module, "coefficient", None)), getattr(module, "bias", None)


def export_layers(network: nn.Module, path: Path) -> None:
    """Write `network` to `path` with every layer and every kernel an output, its layers described in the metadata.

    Args:
        network: images uint8 (N, 28, 28) to logits float32 (N, 10), on the CPU, in whichever mode.
        path: the file to write.

    Raises:
        ExportFailed: see `training.export`.
        ImpossibleLayer: a layer of a kind that is not described.
    """
    plan = _Planner(network).plan()
    inner = [(record, tap) for record, tap in zip(plan.records, plan.taps, strict=True) if record.tensor != LOGITS]
    layered = LayeredNetwork(network, [tap for _, tap in inner])
    graph = to_graph(layered, [LOGITS, *(record.tensor for record, _ in inner)])
    for name, kernel in plan.kernels.items():
        _add_output(graph.graph, name, kernel)
    entry = graph.metadata_props.add()
    entry.key, entry.value = LAYERS_KEY, json.dumps([record.model_dump() for record in plan.records])
    path.write_bytes(graph.SerializeToString(deterministic=True))


def _add_output(graph: onnx.GraphProto, name: str, kernel: npt.NDArray[np.float32]) -> None:
    """Make a kernel an output; the tensor that is in the graph already takes its name, so that none is stored twice."""
    wanted = numpy_helper.from_array(kernel, name)
    outputs = {output.name for output in graph.output}
    free = (there for there in graph.initializer if there.name not in outputs)
    found = next((there for there in free if _equal(there, wanted)), None)
    if found is None:
        graph.initializer.append(wanted)
    else:
        _rename(graph, found.name, name)
    graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, kernel.shape))


def _equal(there: onnx.TensorProto, wanted: onnx.TensorProto) -> bool:
    return (there.data_type, there.dims, there.raw_data) == (wanted.data_type, wanted.dims, wanted.raw_data)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for tensor in graph.initializer:
        if tensor.name == old:
            tensor.name = new
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new


def check_layers(path: Path, model: OnnxModel, images: npt.NDArray[np.uint8]) -> Check:
    """Compare the logits of a layers file with those of the model's own.

    Args:
        path: what `export_layers` wrote.
        model: the file that is served.
        images: uint8 (N, 28, 28), N >= 1.
    """
    session = open_on_cpu(path.read_bytes(), threads=1)
    pieces = [images[start : start + CHECK_BATCH] for start in range(0, len(images), CHECK_BATCH)]
    # NumPy's maximum, for Python's leaves out what is not a number.
    difference = np.max(
        [np.abs(session.run([LOGITS], {INPUT: piece})[0] - model.run(piece).logits).max() for piece in pieces]
    )
    return Check(
        name="layers file",
        figure=f"logits off by {difference:.2e} on {len(images)} images",
        bound=f"at most {TOLERANCE:g}",
        passed=difference <= TOLERANCE,
    )
