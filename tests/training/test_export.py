import math
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from serving import onnx_checks
from serving.errors import ServingError
from serving.manifest import INPUTS, OUTPUTS
from serving.runtime import OnnxModel
from training.architectures import build
from training.evaluate import predictor
from training.export import IR_VERSION, OPSET, ExportFailed, export

IMAGES = np.random.default_rng(3).integers(0, 256, (7, 28, 28), np.uint8)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build("mnist-cnn")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export(network(), path, temperature=1.7)
    return path


def test_the_file_gives_the_networks_logits_and_calibrated_probabilities(exported: Path):
    outputs = OnnxModel(exported, "cpu").run(IMAGES)
    logits = predictor(network())(IMAGES)
    np.testing.assert_allclose(outputs.logits, logits, atol=1e-5)
    expected = torch.softmax(torch.from_numpy(logits) / 1.7, dim=-1).numpy()
    np.testing.assert_allclose(outputs.probabilities, expected, atol=1e-6)


def test_the_tensors_are_those_of_every_model(exported: Path):
    assert onnx_checks.tensor_specs(onnx.load(exported)) == (INPUTS, OUTPUTS)


def test_versions_are_pinned(exported: Path):
    graph = onnx.load(exported)
    assert (graph.ir_version, [(entry.domain, entry.version) for entry in graph.opset_import]) == (
        IR_VERSION,
        [("", OPSET)],
    )


def test_the_file_is_alone_and_says_nothing_about_the_machine(exported: Path):
    assert list(exported.parent.iterdir()) == [exported]
    graph = onnx.load(exported)
    for tensor in graph.graph.initializer:
        tensor.ClearField("raw_data")
    text = str(graph)
    assert "metadata_props" not in text
    assert re.findall(r'doc_string|\.py\b|[^"\s]*/[^"\s]*/[^"\s]*', text) == []


def test_equal_weights_give_equal_bytes(exported: Path, tmp_path: Path):
    export(network(), tmp_path / "again.onnx", temperature=1.7)
    assert (tmp_path / "again.onnx").read_bytes() == exported.read_bytes()


class Dropping(nn.Module):
    """A network with dropout, part of it already in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.dropout, self.frozen = network(), nn.Dropout(0.5), nn.Dropout(0.5)
        self.train()
        self.frozen.eval()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.frozen(self.dropout(self.network(images)))
        return logits


def test_dropout_is_off_in_the_file_and_every_layer_keeps_its_mode(tmp_path: Path):
    model = Dropping()
    export(model, tmp_path / "model.onnx")
    assert onnx_checks.training_operators(onnx.load(tmp_path / "model.onnx")) == []
    outputs = OnnxModel(tmp_path / "model.onnx", "cpu").run(IMAGES)
    np.testing.assert_allclose(outputs.logits, predictor(model.network)(IMAGES), atol=1e-5)
    assert (model.training, model.dropout.training, model.frozen.training) == (True, True, False)


class FixedBatch(nn.Module):
    """A network that works for the example's batch size only."""

    def forward(self, images: Tensor) -> Tensor:
        return images.reshape(2, 784)[:, :10].float()


class DataDependent(nn.Module):
    """A network whose path depends on the pixels, which no graph can follow."""

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1).float()
        return flat[:, :10] if float(flat.sum()) > 0 else flat[:, 10:20]


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (FixedBatch(), r"made a graph with images uint8 \[2,28,28\], expected images uint8 \[batch,28,28\]$"),
        (DataDependent(), r"cannot export this network: \w"),
    ],
    ids=["fixed batch", "data-dependent"],
)
def test_a_network_that_cannot_be_exported_is_one_line(tmp_path: Path, model: nn.Module, complaint: str):
    with pytest.raises(ExportFailed, match=complaint) as caught:
        export(model, tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ServingError)
    assert model.training
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_that_is_no_positive_number_is_refused(tmp_path: Path, temperature: float):
    with pytest.raises(ExportFailed, match="expected a positive number"):
        export(network(), tmp_path / "model.onnx", temperature)
    assert list(tmp_path.iterdir()) == []
