import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as F

from serving.explain import LAYERS_KEY
from serving.runtime import OnnxModel, Outputs, open_on_cpu
from training.architectures import NAMES, PartialConv2d, build
from training.export import export
from training.layered import CHECK_BATCH, check_layers, export_layers
from training.shapes import explain, trace

IMAGES = np.random.default_rng(5).integers(0, 256, (5, 28, 28), np.uint8)


def network(name: str) -> nn.Module:
    torch.manual_seed(1)
    model = build(name)
    model.train()(torch.from_numpy(IMAGES))  # batch normalisation gets statistics that are not 0 and 1
    return model.eval()


class Written:
    """A layers file, read back."""

    def __init__(self, name: str, folder: Path):
        self.model = network(name)
        self.path = folder / "layers.onnx"
        export_layers(self.model, self.path)
        session = open_on_cpu(self.path.read_bytes(), threads=1)
        names = [output.name for output in session.get_outputs()]
        self.values = dict(zip(names, session.run(names, {"images": IMAGES}), strict=True))
        text = session.get_modelmeta().custom_metadata_map[LAYERS_KEY]
        self.records = {record["name"]: record for record in json.loads(text)}


@pytest.fixture(scope="module", params=NAMES)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(request.param, tmp_path_factory.mktemp("layers"))


def test_every_layer_is_an_output_with_the_networks_own_values(written: Written):
    calls = trace(written.model, torch.from_numpy(IMAGES[0]))
    layers = [(name, after) for name, module, _, after in calls if not isinstance(module, nn.Identity)]
    for name, after in layers:
        found = written.values[written.records[name]["tensor"]][0]
        np.testing.assert_allclose(found, after[0].numpy(), atol=1e-5, err_msg=name)


def test_the_descriptions_are_those_of_the_shapes_table(written: Written):
    for row in explain(written.model):
        if row.kind == "Identity":
            continue
        record = written.records[row.name]
        assert (record["kind"], record["arithmetic"], record["parameters"], record["multiply_adds"]) == (
            row.kind,
            row.arithmetic,
            row.parameters,
            row.multiply_adds,
        )
        assert list(written.values[record["tensor"]].shape[1:]) == record["output_shape"] == list(row.output)


def test_each_source_gives_what_its_layer_takes(written: Written):
    for record in written.records.values():
        if record["source"]:
            assert written.records[record["source"]]["output_shape"] == record["input_shape"], record["name"]
    assert next(name for name, record in written.records.items() if record["source"] is None) == "normalize"


def test_patch_times_kernel_gives_the_convolutions_values(written: Written):
    for record in written.records.values():
        if record["kind"] == "convolution":
            before = written.values[written.records[record["source"]]["tensor"]]
            kernel, bias = written.values[record["weight"]], written.values.get(record["bias"])
            made = F.conv2d(
                torch.from_numpy(before),
                torch.from_numpy(kernel),
                None if bias is None else torch.from_numpy(bias),
                record["stride"],
                record["padding"],
            )
            np.testing.assert_allclose(written.values[record["tensor"]], made.numpy(), atol=1e-4)


def test_no_kernel_is_stored_twice(written: Written):
    graph = onnx.load(written.path).graph
    large = [tensor for tensor in graph.initializer if numpy_helper.to_array(tensor).size > 1000]
    assert len({tensor.raw_data for tensor in large}) == len(large)


def test_kernels_of_maps_that_are_not_connected_are_zero(tmp_path: Path):
    written = Written("mnist-lenet5", tmp_path)
    layer = written.model.get_submodule("c3")
    assert isinstance(layer, PartialConv2d)
    absent = (layer.weight_index == layer.connections).numpy()
    assert absent.any()
    assert np.abs(written.values["c3.weight"]).max(axis=(2, 3))[absent].max() == 0
    assert np.abs(written.values["c3.weight"]).max(axis=(2, 3))[~absent].min() > 0


class Twice(nn.Module):
    """One module that runs twice, one that does nothing, and a function between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten, self.relu, self.dropout = nn.Flatten(), nn.ReLU(), nn.Dropout(0.5)
        self.first, self.second = nn.Linear(784, 20), nn.Linear(20, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.relu(self.first(self.flatten(images.to(torch.float32) / 255)))
        logits: torch.Tensor = self.second(self.dropout(self.relu(hidden - 0.1)))
        return logits


def test_a_layer_that_runs_twice_and_a_value_between_layers_have_their_own_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tests.training.test_layered.build", lambda _: Twice())
    records = Written("twice", tmp_path).records
    chain = {name: record["source"] for name, record in records.items()}
    assert chain == {
        "flatten": None,
        "first": "flatten",
        "relu": "first",
        "relu.input": None,
        "relu#2": "relu.input",
        "second": "relu#2",
    }


def test_the_check_passes_for_equal_weights_and_fails_for_others(tmp_path: Path):
    model = network("mnist-cnn")
    export(model, tmp_path / "model.onnx")
    served = OnnxModel(tmp_path / "model.onnx", "cpu")
    export_layers(model, tmp_path / "layers.onnx")
    assert check_layers(tmp_path / "layers.onnx", served, IMAGES).passed
    with torch.no_grad():
        model.get_parameter("linear.bias").add_(0.01)
    export_layers(model, tmp_path / "layers.onnx")
    check = check_layers(tmp_path / "layers.onnx", served, IMAGES)
    assert (check.passed, check.figure) == (False, "logits off by 1.00e-02 on 5 images")


def test_the_check_fails_for_what_is_no_number_in_a_later_piece(tmp_path: Path):
    model = network("mnist-mlp")
    export_layers(model, tmp_path / "layers.onnx")

    class Broken:
        def run(self, images: np.ndarray) -> Outputs:
            right = session.run(images)
            if len(images) < CHECK_BATCH:
                right.logits[:] = np.nan
            return right

    export(model, tmp_path / "model.onnx")
    session = OnnxModel(tmp_path / "model.onnx", "cpu")
    assert not check_layers(tmp_path / "layers.onnx", Broken(), np.zeros((CHECK_BATCH + 1, 28, 28), np.uint8)).passed
