import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from serving.errors import ModelRejected, Unsupported
from serving.explain import LayeredModel, cover, occlusion_map
from serving.manifest import LAYERS_FILE_NAME, read_manifest
from tests.serving.layered_model import expected_layers, layers_graph, records, seven, weights, write_layered_model
from tests.serving.tiny_model import write_tiny_model


def load(folder: Path) -> LayeredModel:
    return LayeredModel(folder, read_manifest(folder))


def test_every_layer_and_every_kernel_are_those_that_numpy_computes(tmp_path: Path):
    model = load(write_layered_model(tmp_path))
    expected = expected_layers(seven())
    values = model.run(seven())
    assert list(values) == list(expected)
    for name, value in values.items():
        np.testing.assert_allclose(value, expected[name], atol=1e-4, err_msg=name)
    assert model.kernels.keys() == weights().keys()
    for name, kernel in weights().items():
        np.testing.assert_array_equal(model.kernels[name], kernel)


def test_layers_are_described_with_their_arithmetic(tmp_path: Path):
    conv = load(write_layered_model(tmp_path)).records[1]
    assert (conv.source, conv.kernel_size, conv.arithmetic) == ("normalize", (5, 5), "(28 + 2*0 - 5)//1 + 1 = 24")


def test_a_network_without_kernels_has_none(tmp_path: Path):
    plain = [record for record in records() if "weight" not in record]
    assert load(write_layered_model(tmp_path, layers=layers_graph(described=plain))).kernels == {}


def test_a_version_without_the_file_says_so(tmp_path: Path):
    folder = write_tiny_model(tmp_path)
    with pytest.raises(Unsupported, match=r"^tiny version 1 was published without layers\.onnx$"):
        load(folder)


def test_a_changed_file_is_refused(tmp_path: Path):
    folder = write_layered_model(tmp_path)
    path = folder / LAYERS_FILE_NAME
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ModelRejected, match=r"^SHA-256 of layers\.onnx: found"):
        load(folder)


@pytest.mark.parametrize(("kind", "found"), [("missing", "no file layers.onnx"), ("link", "layers.onnx is a link")])
def test_a_file_that_is_not_in_its_place_is_refused(tmp_path: Path, kind: str, found: str):
    folder = write_layered_model(tmp_path)
    path = folder / LAYERS_FILE_NAME
    path.rename(tmp_path / "elsewhere.onnx")
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(ModelRejected, match=f"place: found {re.escape(found)}"):
        load(folder)


def with_other_weights() -> onnx.ModelProto:
    graph = layers_graph()
    bias = next(tensor for tensor in graph.graph.initializer if tensor.name == "linear.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 0.01, bias.name))
    return graph


def with_data_outside() -> onnx.ModelProto:
    graph = layers_graph()
    onnx.external_data_helper.set_external_data(graph.graph.initializer[2], "weights.bin")
    return graph


def with_a_foreign_operator() -> onnx.ModelProto:
    graph = layers_graph()
    graph.graph.node.append(helper.make_node("Surprise", ["logits"], ["surprise"], domain="elsewhere"))
    return graph


def without(output: str) -> onnx.ModelProto:
    graph = layers_graph()
    kept = [value for value in graph.graph.output if value.name != output]
    del graph.graph.output[:]
    graph.graph.output.extend(kept)
    return graph


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (with_other_weights(), r"^golden digits in layers\.onnx: found logits off by 0\.01, expected 0\.001$"),
        (with_data_outside(), "^external data: found .* in weights.bin"),
        (with_a_foreign_operator(), r"^operators: found elsewhere\.Surprise"),
        (without("pool"), "^layers: found no output 'pool'"),
        (without("conv.weight"), "^layers: found no output 'conv.weight'"),
        (layers_graph(described=[{"name": "conv"}]), "^layers: found no readable description"),
        (layers_graph(described=[]), "^layers: found no readable description"),
    ],
)
def test_a_file_that_fails_a_check_is_refused(tmp_path: Path, layers: onnx.ModelProto, message: str):
    folder = write_layered_model(tmp_path, layers=layers)
    with pytest.raises(ModelRejected, match=message):
        load(folder)


def test_covers_lie_on_every_pixel_where_they_hide_ink():
    image = np.zeros((28, 28), np.uint8)
    image[0, 0] = image[14, 20] = 255
    covered, centres = cover(image, side=5)
    expected = {(row, column) for row in range(3) for column in range(3)}
    expected |= {(row, column) for row in range(12, 17) for column in range(18, 23)}
    assert {tuple(centre) for centre in centres.tolist()} == expected
    for picture, (row, column) in zip(covered, centres, strict=True):
        hidden = (image != picture).nonzero()
        assert (np.abs(hidden[0] - row).max(), np.abs(hidden[1] - column).max()) <= (2, 2)
        assert picture.sum() == 255


def test_a_blank_picture_has_no_covers():
    covered, centres = cover(np.zeros((28, 28), np.uint8))
    assert (covered.shape, centres.shape) == ((0, 28, 28), (0, 2))


def test_the_occlusion_map_holds_the_whole_drawings_answer_where_nothing_is_hidden():
    uncovered = np.linspace(0, 1, 10, dtype=np.float32)
    covered = np.full((1, 10), 0.5, np.float32)
    found = occlusion_map(uncovered, covered, np.array([[3, 4]]))
    assert found.shape == (28, 28, 10)
    np.testing.assert_array_equal(found[3, 4], covered[0])
    found[3, 4] = uncovered
    np.testing.assert_array_equal(found, np.tile(uncovered, (28, 28, 1)))
