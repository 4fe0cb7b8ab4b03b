"""A one-layer model in the form that the service reads, made without a training framework."""

import base64
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from serving.manifest import INPUTS, MODEL_FILE_NAME, OUTPUTS, Manifest

OPSET, IR_VERSION = 18, 10


def weights(seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(scale=0.1, size=(784, 10)).astype(np.float32)


def expected_logits(images: npt.NDArray[np.uint8], seed: int = 0) -> npt.NDArray[np.float32]:
    return (images.reshape(len(images), 784).astype(np.float32) / 255) @ weights(seed)


def tiny_graph(seed: int = 0, names: tuple[str, ...] = ("images", "logits", "probabilities")) -> onnx.ModelProto:
    """Return logits = images / 255 @ weights and their softmax."""
    images, logits, probabilities = names
    nodes = [
        helper.make_node("Cast", [images], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["pixels", "full"], ["intensities"]),
        helper.make_node("Reshape", ["intensities", "rows"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], [logits]),
        helper.make_node("Softmax", [logits], [probabilities], axis=-1),
    ]
    constants = {"full": np.float32(255), "rows": np.array([-1, 784]), "weights": weights(seed)}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(images, TensorProto.UINT8, ["batch", 28, 28])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 10]) for name in (logits, probabilities)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def tiny_manifest(model: bytes, name: str = "tiny", version: int = 1, **changes: Any) -> Manifest:
    """Return a manifest that vouches for `model`, with the fields of `changes` instead of the usual ones."""
    images = np.random.default_rng(1).integers(0, 256, (20, 28, 28), np.uint8)
    digest = hashlib.sha256(model).hexdigest()
    fields: dict[str, Any] = {
        "name": name,
        "version": version,
        "created": "2026-01-01T00:00:00+00:00",
        "description": "one layer of random weights",
        "file": {"name": MODEL_FILE_NAME, "sha256": digest, "size_bytes": len(model)},
        "opset": OPSET,
        "ir_version": IR_VERSION,
        "inputs": INPUTS,
        "outputs": OUTPUTS,
        "labels": [str(digit) for digit in range(10)],
        "temperature": 1.0,
        "training": {
            "architecture": "tiny",
            "recipe": "random",
            "hyperparameters": {},
            "seed": 0,
            "epochs": 0,
            "parameters": 7840,
            "multiply_adds": 7840,
            "device": "cpu",
            "code_commit": "unknown",
            "dataset_sha256": {},
            "packages": {},
        },
        "accuracy": [{"split": "test", "correct": 1, "total": 10, "accuracy": 0.1, "interval_95": (0.02, 0.4)}],
        "checks": [],
        "acceptance": {"min_confidence": 0.0, "chosen_on": "default"},
        "reference": {"digits": [0.1] * 10, "ink_edges": [0.0, 255.0], "ink": [1.0]},
        "golden": [
            {"label": 0, "pixels": base64.b64encode(image.tobytes()).decode(), "logits": logits.tolist()}
            for image, logits in zip(images, expected_logits(images), strict=True)
        ],
    }
    return Manifest.model_validate(fields | changes)


def write_tiny_model(root: Path, name: str = "tiny", version: int = 1, **changes: Any) -> Path:
    """Publish the tiny model as `root/NAME/VERSION` and return that folder."""
    folder = root / name / str(version)
    folder.mkdir(parents=True)
    model = tiny_graph().SerializeToString()
    (folder / MODEL_FILE_NAME).write_bytes(model)
    tiny_manifest(model, name, version, **changes).write(folder)
    return folder
