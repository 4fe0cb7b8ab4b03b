"""A model with one convolution and its layers file, made without a training framework."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from serving.manifest import LAYERS_FILE_NAME, MODEL_FILE_NAME
from serving.runtime import OnnxModel
from tests.serving.tiny_model import IR_VERSION, OPSET, tiny_manifest

MAPS, KERNEL = 3, 5

Values = npt.NDArray[np.float32]


def weights() -> dict[str, Values]:
    random = np.random.default_rng(11)
    shapes = {
        "conv.weight": (MAPS, 1, KERNEL, KERNEL),
        "conv.bias": (MAPS,),
        "linear.weight": (10, 432),
        "linear.bias": (10,),
    }
    return {name: random.normal(scale=0.2, size=shape).astype(np.float32) for name, shape in shapes.items()}


def expected_layers(image: npt.NDArray[np.uint8]) -> dict[str, Values]:
    """Return what every layer gives for an image uint8 (28, 28), by numpy alone."""
    given = weights()
    intensities = image.astype(np.float32) / 255
    windows = np.lib.stride_tricks.sliding_window_view(intensities, (KERNEL, KERNEL))
    conv = np.einsum("rcyx,myx->mrc", windows, given["conv.weight"][:, 0]) + given["conv.bias"][:, None, None]
    pool = conv.reshape(MAPS, 12, 2, 12, 2).max(axis=(2, 4))
    relu = np.maximum(pool, 0)
    linear = given["linear.weight"] @ relu.ravel() + given["linear.bias"]
    return {
        "normalize": intensities[None],
        "conv": conv,
        "pool": pool,
        "relu": relu,
        "flatten": relu.ravel(),
        "linear": linear,
    }


def _nodes() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["pixels", "full"], ["intensities"]),
        helper.make_node("Reshape", ["intensities", "one channel"], ["normalize"]),
        helper.make_node("Conv", ["normalize", "conv.weight", "conv.bias"], ["conv"], kernel_shape=[KERNEL, KERNEL]),
        helper.make_node("MaxPool", ["conv"], ["pool"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Relu", ["pool"], ["relu"]),
        helper.make_node("Flatten", ["relu"], ["flatten"]),
        helper.make_node("Gemm", ["flatten", "linear.weight", "linear.bias"], ["logits"], transB=1),
    ]


def _graph(nodes: list[onnx.NodeProto], outputs: dict[str, tuple[str | int, ...]]) -> onnx.ModelProto:
    constants = {"full": np.float32(255), "one channel": np.array([-1, 1, 28, 28]), **weights()}
    graph = helper.make_graph(
        nodes,
        "layered",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 28, 28])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def model_graph() -> onnx.ModelProto:
    softmax = helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1)
    return _graph([*_nodes(), softmax], {"logits": ("batch", 10), "probabilities": ("batch", 10)})


SHAPES = {
    "normalize": (1, 28, 28),
    "conv": (MAPS, 24, 24),
    "pool": (MAPS, 12, 12),
    "relu": (MAPS, 12, 12),
    "flatten": (432,),
}


def _record(name: str, kind: str, before: tuple[int, ...], source: str | None, **changes: Any) -> dict[str, Any]:
    plain = {"tensor": name, "geometry": "", "arithmetic": "same shape", "parameters": 0, "multiply_adds": 0}
    shape = SHAPES.get(name, (10,))
    return {
        "name": name,
        "kind": kind,
        "source": source,
        "input_shape": before,
        "output_shape": shape,
        **plain,
        **changes,
    }


def records() -> list[dict[str, Any]]:
    window = {"kernel_size": (KERNEL, KERNEL), "stride": (1, 1), "padding": (0, 0), "geometry": "k5 s1 p0"}
    pool = {"kernel_size": (2, 2), "stride": (2, 2), "padding": (0, 0), "geometry": "k2 s2 p0"}
    kernels = {"weight": "conv.weight", "bias": "conv.bias", "parameters": 78, "multiply_adds": 43200}
    linear = {"tensor": "logits", "weight": "linear.weight", "bias": "linear.bias", "parameters": 4330}
    return [
        _record("normalize", "normalize", (28, 28), None),
        _record(
            "conv",
            "convolution",
            (1, 28, 28),
            "normalize",
            arithmetic="(28 + 2*0 - 5)//1 + 1 = 24",
            **window,
            **kernels,
        ),
        _record("pool", "max-pool", (MAPS, 24, 24), "conv", **pool),
        _record("relu", "ReLU", (MAPS, 12, 12), "pool"),
        _record("flatten", "flatten", (MAPS, 12, 12), "relu", arithmetic="3*12*12 = 432"),
        _record("linear", "linear", (432,), "flatten", **linear),
    ]


def layers_graph(described: Any = None) -> onnx.ModelProto:
    outputs: dict[str, tuple[str | int, ...]] = {"logits": ("batch", 10)}
    outputs |= {name: ("batch", *shape) for name, shape in SHAPES.items()}
    outputs |= {name: value.shape for name, value in weights().items()}
    graph = _graph(_nodes(), outputs)
    entry = graph.metadata_props.add()
    entry.key, entry.value = "layers", json.dumps(records() if described is None else described)
    return graph


def write_layered_model(
    root: Path, name: str = "layered", layers: onnx.ModelProto | None = None, version: int = 1
) -> Path:
    """Publish the model as `root/NAME/VERSION` with the given layers file, and return that folder."""
    folder = root / name / str(version)
    folder.mkdir(parents=True)
    model = model_graph().SerializeToString()
    content = (layers or layers_graph()).SerializeToString()
    (folder / MODEL_FILE_NAME).write_bytes(model)
    (folder / LAYERS_FILE_NAME).write_bytes(content)
    images = np.random.default_rng(1).integers(0, 256, (20, 28, 28), np.uint8)
    images[7] = seven()
    golden = [
        {"label": place % 10, "pixels": base64.b64encode(image.tobytes()).decode(), "logits": logits.tolist()}
        for place, (image, logits) in enumerate(zip(images, OnnxModel(model, "cpu", 1).run(images).logits, strict=True))
    ]
    digest = hashlib.sha256(content).hexdigest()
    record = {"name": LAYERS_FILE_NAME, "sha256": digest, "size_bytes": len(content)}
    tiny_manifest(model, name, version, golden=golden, layers=record).write(folder)
    return folder


def seven() -> npt.NDArray[np.uint8]:
    """Return a 7 in MNIST's form: uint8 (28, 28)."""
    image = np.zeros((28, 28), np.uint8)
    image[5:8, 7:20] = 255
    for row in range(8, 24):
        column = 18 - (row - 8) // 2
        image[row, column : column + 3] = 200
    return image
