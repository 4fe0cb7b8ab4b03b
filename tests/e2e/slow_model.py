"""A model that is slow, or never comes back, when the first image of a batch asks for it."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from serving.manifest import MODEL_FILE_NAME
from tests.serving.tiny_model import IR_VERSION, OPSET, tiny_graph, tiny_manifest

# Values of the last pixel of the first image.
SLOW, STUCK = 254, 255

# Turns of an empty loop; one takes 1.2 us here. A run of USUAL turns is too long for the event loop (see
# serving.warm_up), one of SLOW_TURNS takes seconds, one of STUCK_TURNS weeks.
USUAL_TURNS, SLOW_TURNS, STUCK_TURNS = 500, 3_000_000, 10**12


def slow_graph() -> onnx.ModelProto:
    """Return the tiny model behind a loop that goes round as often as the first image says."""
    tiny = tiny_graph()
    constants = {
        "place": np.array([783], np.int64),
        "slow": np.array([SLOW], np.uint8),
        "stuck": np.array([STUCK], np.uint8),
        "usual_turns": np.array([USUAL_TURNS], np.int64),
        "slow_turns": np.array([SLOW_TURNS], np.int64),
        "stuck_turns": np.array([STUCK_TURNS], np.int64),
        "one_row": np.array([-1], np.int64),
        "scalar": np.array([], np.int64),
        "true": np.array(True),
        "zero": np.float32(0),
    }
    nodes = [
        helper.make_node("Reshape", ["images", "one_row"], ["all_pixels"]),
        helper.make_node("Gather", ["all_pixels", "place"], ["asked"], axis=0),
        helper.make_node("Equal", ["asked", "slow"], ["is_slow"]),
        helper.make_node("Equal", ["asked", "stuck"], ["is_stuck"]),
        helper.make_node("Where", ["is_slow", "slow_turns", "usual_turns"], ["some_turns"]),
        helper.make_node("Where", ["is_stuck", "stuck_turns", "some_turns"], ["turn_row"]),
        helper.make_node("Reshape", ["turn_row", "scalar"], ["turns"]),
        helper.make_node("Loop", ["turns", "true", "zero"], ["nothing"], body=_body()),
        helper.make_node("Add", ["flat", "nothing"], ["delayed"]),
    ]
    (matmul,) = (node for node in tiny.graph.node if node.op_type == "MatMul")
    matmul.input[0] = "delayed"
    place = list(tiny.graph.node).index(matmul)
    ordered = [*list(tiny.graph.node)[:place], *nodes, *list(tiny.graph.node)[place:]]
    del tiny.graph.node[:]
    tiny.graph.node.extend(ordered)
    tiny.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return helper.make_model(
        tiny.graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="slow"
    )


def _body() -> onnx.GraphProto:
    inputs = [
        helper.make_tensor_value_info("turn", TensorProto.INT64, []),
        helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("value", TensorProto.FLOAT, []),
    ]
    outputs = [
        helper.make_tensor_value_info("go_on_then", TensorProto.BOOL, []),
        helper.make_tensor_value_info("value_then", TensorProto.FLOAT, []),
    ]
    nodes = [
        helper.make_node("Identity", ["go_on"], ["go_on_then"]),
        helper.make_node("Neg", ["value"], ["value_then"]),
    ]
    return helper.make_graph(nodes, "body", inputs, outputs)


def write_slow_model(root: Path, name: str) -> Path:
    """Publish it as `root/NAME/1` and return that folder."""
    folder = root / name / "1"
    folder.mkdir(parents=True)
    model = slow_graph().SerializeToString()
    (folder / MODEL_FILE_NAME).write_bytes(model)
    tiny_manifest(model, name, 1).write(folder)
    return folder
