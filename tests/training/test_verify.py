from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from serving.manifest import Check
from serving.runtime import Outputs
from tests.conftest import Digits as TestDigits
from training.architectures import Normalize
from training.export import OPSET, CalibratedNetwork, export
from training.verify import (
    Digits,
    Subject,
    VerificationFailed,
    _repetition,
    check_batch_sizes,
    check_graph,
    check_probabilities,
    format_checks,
    require,
    verify,
)

TEMPERATURE = 1.3
FLOOR = 0.8

NAMES = [
    "single file",
    "operators",
    "training mode",
    "inputs",
    "outputs",
    "batch",
    "versions",
    "onnx.checker",
    "batch sizes",
    "parity",
    "labels",
    "companions",
    "repetition",
    "probabilities",
    "accuracy",
    "accuracy kept",
]


class Linear(nn.Module):
    """The smallest network that reads digits, with a dropout that matters in training mode only."""

    def __init__(self) -> None:
        super().__init__()
        self.normalize, self.dropout, self.linear = Normalize(), nn.Dropout(0.5), nn.Linear(784, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.dropout(self.normalize(images).flatten(1)))
        return logits


@pytest.fixture(scope="module")
def network(test_digits: TestDigits) -> Linear:
    """Return a network that was fitted by least squares to the test set; what it learned from does not matter here."""
    images, labels = test_digits
    model = Linear().eval()
    pixels = model.normalize(torch.tensor(images)).flatten(1).numpy().astype(np.float64)
    design = np.column_stack([pixels, np.ones(len(pixels))])
    targets = 10 * np.eye(10)[labels]
    solution = np.linalg.solve(design.T @ design + 100 * np.eye(785), design.T @ targets)
    model.linear.weight.data = torch.tensor(solution[:784].T, dtype=torch.float32)
    model.linear.bias.data = torch.tensor(solution[784], dtype=torch.float32)
    return model


@pytest.fixture(scope="module")
def digits(test_digits: TestDigits, network: Linear) -> Digits:
    """Return the test set without the few digits that this weak network leaves undecided.

    Between logits that differ by a rounding error, each kind of processor chooses for itself.
    """
    images, labels = test_digits
    with torch.inference_mode():
        best = network(torch.tensor(images)).topk(2).values
    decided = (best[:, 0] - best[:, 1] > 1e-4).numpy()
    assert decided.mean() > 0.999
    return Digits(images[decided], labels[decided])


@pytest.fixture(scope="module")
def exported(network: Linear, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export(network, path, TEMPERATURE)
    return path.read_bytes()


@pytest.fixture
def file(tmp_path: Path, exported: bytes) -> Path:
    (tmp_path / "model.onnx").write_bytes(exported)
    return tmp_path / "model.onnx"


def failures(file: Path, network: nn.Module, digits: Digits, floor: float = FLOOR) -> dict[str, str]:
    """Return the figures of the checks that failed, by name, having seen that every check ran."""
    checks = verify(file, network, digits, temperature=TEMPERATURE, min_accuracy=floor)
    assert [check.name for check in checks] == NAMES
    return {check.name: check.figure for check in checks if not check.passed}


def edit(file: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    graph = onnx.load(file)
    change(graph)
    file.write_bytes(graph.SerializeToString())


def weight_of(graph: onnx.ModelProto, name: str = "network.linear.weight") -> TensorProto:
    return next(tensor for tensor in graph.graph.initializer if tensor.name == name)


def edit_weight(file: Path, change: Callable[[np.ndarray], np.ndarray], name: str = "network.linear.weight") -> None:
    def replace(graph: onnx.ModelProto) -> None:
        tensor = weight_of(graph, name)
        tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), name))

    edit(file, replace)


def export_as_it_is(model: nn.Module, file: Path, **options: object) -> None:
    """Export without what `training.export` takes care of."""
    program = torch.onnx.export(
        model,
        (torch.zeros(2, 28, 28, dtype=torch.uint8),),
        dynamo=True,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["logits", "probabilities"],
        external_data=False,
        verbose=False,
        **options,
    )
    file.write_bytes(program.model_proto.SerializeToString())


def test_a_good_export_passes_every_check(file: Path, network: Linear, digits: Digits):
    assert failures(file, network, digits) == {}


@pytest.mark.filterwarnings("ignore:Exporting a model while it is in training mode")
def test_dropout_left_in_training_mode(file: Path, network: Linear, digits: Digits):
    network.train()
    try:
        model = CalibratedNetwork(network, TEMPERATURE)
        export_as_it_is(model, file, dynamic_shapes=({0: torch.export.Dim("batch")},))
    finally:
        network.eval()
    # onnxruntime drops nothing, so the figures are right; other runtimes do as the file says.
    assert failures(file, network, digits)["training mode"].startswith("Dropout")


def test_noise_that_the_network_adds_to_itself(file: Path, network: Linear, digits: Digits):
    def add_noise(graph: onnx.ModelProto) -> None:
        last = next(node for node in graph.graph.node if "logits" in node.output)
        last.output[0] = "quiet"
        noise = helper.make_node("RandomUniformLike", ["quiet"], ["noise"], name="noise", high=0.01)
        position = list(graph.graph.node).index(last) + 1
        graph.graph.node.insert(position, helper.make_node("Add", ["quiet", "noise"], ["logits"]))
        graph.graph.node.insert(position, noise)

    edit(file, add_noise)
    found = failures(file, network, digits)
    assert found["training mode"] == "RandomUniformLike noise"
    assert {"batch sizes", "parity", "companions", "repetition"} <= found.keys()


def test_a_batch_size_that_is_baked_in(file: Path, network: Linear, digits: Digits):
    export_as_it_is(CalibratedNetwork(network, TEMPERATURE).eval(), file)
    found = failures(file, network, digits)
    assert found["batch"] == "2, 2, 2"
    assert {"inputs", "outputs", "batch", "batch sizes", "parity"} <= found.keys()
    assert found["batch sizes"].startswith("the model failed on uint8 (1, 28, 28)")


def test_a_batch_size_that_is_baked_in_behind_a_symbol(file: Path, network: Linear, digits: Digits):
    export_as_it_is(CalibratedNetwork(network, TEMPERATURE).eval(), file)

    def name_it(graph: onnx.ModelProto) -> None:
        for value in (*graph.graph.input, *graph.graph.output):
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
        graph.graph.ClearField("value_info")

    edit(file, name_it)
    found = failures(file, network, digits)
    assert "batch" not in found
    assert "batch sizes" in found


def test_a_weight_that_is_off_by_a_tenth(file: Path, network: Linear, digits: Digits):
    def scale(weight: np.ndarray) -> np.ndarray:
        weight[3, 14 * 28 + 14] *= 1.1
        return weight

    edit_weight(file, scale)
    found = failures(file, network, digits)
    assert "parity" in found
    assert float(found["parity"].split(",")[0]) > 1e-4


def test_a_bias_that_is_off_by_a_thousandth(file: Path, network: Linear, digits: Digits):
    edit_weight(file, lambda bias: bias + np.float32(1e-3), "network.linear.bias")
    assert failures(file, network, digits).keys() == {"batch sizes", "parity"}


def test_classes_that_are_permuted(file: Path, network: Linear, digits: Digits):
    edit_weight(file, lambda weight: np.roll(weight, 1, axis=0))
    edit_weight(file, lambda bias: np.roll(bias, 1), "network.linear.bias")
    assert failures(file, network, digits).keys() == {"batch sizes", "parity", "labels", "accuracy", "accuracy kept"}


class NormalizedTwice(nn.Module):
    """A network that gets pixels which are normalised already, as a client's own code would send them."""

    def __init__(self, network: Linear):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network.linear(self.network.normalize(self.network.normalize(images)).flatten(1))
        return logits


def test_pixels_that_are_normalised_twice(file: Path, network: Linear, digits: Digits):
    export(NormalizedTwice(network), file, TEMPERATURE)
    assert {"batch sizes", "parity", "labels"} <= failures(file, network, digits).keys()


def test_weights_in_a_second_file(file: Path, network: Linear, digits: Digits):
    onnx.save_model(onnx.load(file), file, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    found = failures(file, network, digits)
    assert "val_4 in model.onnx.data" in found["single file"]
    assert {"parity", "accuracy"} <= found.keys()


def test_an_accuracy_under_the_floor(file: Path, network: Linear, digits: Digits):
    found = failures(file, network, digits, floor=0.99)
    assert found.keys() == {"accuracy"}
    share, correct, _, total = found["accuracy"].replace("(", "").replace(")", "").split()
    assert int(total) == len(digits.images)
    assert float(share) == pytest.approx(int(correct) / int(total), abs=5e-5)


def test_an_accuracy_below_the_checkpoints(file: Path, network: Linear, digits: Digits):
    edit_weight(file, lambda weight: weight * np.where(np.arange(10) == 8, 0.9, 1)[:, None].astype(np.float32))
    found = failures(file, network, digits)
    assert "accuracy kept" in found
    assert "accuracy" not in found


def test_a_foreign_operator(file: Path, network: Linear, digits: Digits):
    def make_foreign(graph: onnx.ModelProto) -> None:
        graph.opset_import.append(helper.make_opsetid("com.microsoft", 1))
        graph.graph.node.append(helper.make_node("Gelu", ["logits"], ["unused"], domain="com.microsoft"))

    edit(file, make_foreign)
    assert failures(file, network, digits)["operators"] == "com.microsoft, com.microsoft.Gelu"


def swap_tensors(graph: onnx.ModelProto) -> None:
    logits, probabilities = graph.graph.output
    copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in (probabilities, logits)]
    graph.graph.ClearField("output")
    graph.graph.output.extend(copies)


def test_outputs_in_another_order(file: Path, network: Linear, digits: Digits):
    edit(file, swap_tensors)
    found = failures(file, network, digits)
    assert {"outputs", "parity"} <= found.keys()


def test_symbols_that_differ(file: Path, network: Linear, digits: Digits):
    def rename(graph: onnx.ModelProto) -> None:
        graph.graph.output[1].type.tensor_type.shape.dim[0].dim_param = "n"

    edit(file, rename)
    assert failures(file, network, digits).keys() == {"outputs", "batch"}


def test_a_scalar_has_no_batch(file: Path, network: Linear, digits: Digits):
    edit(file, lambda graph: graph.graph.output[1].type.tensor_type.shape.ClearField("dim"))
    assert failures(file, network, digits)["batch"] == "batch, batch, none"


@pytest.mark.parametrize(("opset", "ir_version"), [(27, 10), (18, 14), (99, 99)])
def test_versions_that_the_oldest_runtime_does_not_read(
    file: Path, network: Linear, digits: Digits, opset: int, ir_version: int
):
    def raise_versions(graph: onnx.ModelProto) -> None:
        graph.opset_import[0].version, graph.ir_version = opset, ir_version

    edit(file, raise_versions)
    assert failures(file, network, digits)["versions"] == f"operator set {opset}, IR version {ir_version}"


def test_a_graph_that_the_checker_refuses(file: Path, network: Linear, digits: Digits):
    edit(file, lambda graph: graph.graph.output[0].type.tensor_type.shape.dim.add(dim_value=3))
    found = failures(file, network, digits)["onnx.checker"]
    assert found
    assert "\n" not in found


def test_a_softmax_at_another_temperature(file: Path, network: Linear, digits: Digits):
    export(network, file, temperature=1.0)
    assert failures(file, network, digits).keys() == {"probabilities"}


@pytest.mark.parametrize("dependence", [1.0, 1e-4])
def test_rows_that_depend_on_their_companions(file: Path, network: Linear, digits: Digits, dependence: float):
    class Centred(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = network(images)
            return logits - dependence * logits.mean(dim=0)

    model = Centred().eval()
    export(model, file, TEMPERATURE)
    found = failures(file, model, digits)
    assert "companions" in found
    assert "parity" not in found


def test_logits_that_are_no_numbers(file: Path, network: Linear, digits: Digits):
    edit_weight(file, lambda weight: np.full_like(weight, np.nan))
    found = failures(file, network, digits)
    assert {"batch sizes", "parity", "labels", "companions", "probabilities", "accuracy"} <= found.keys()
    assert found["parity"] == f"logits that are not numbers in a batch of {len(digits.images)}"


def test_logits_that_are_no_numbers_at_one_batch_size(file: Path, network: Linear, digits: Digits):
    def spoil(graph: onnx.ModelProto) -> None:
        for node in graph.graph.node:
            node.output[:] = ["good" if name == "logits" else name for name in node.output]
            node.input[:] = ["good" if name == "logits" else name for name in node.input]
        values = {"first": np.int64(0), "seven": np.int64(7), "nan": np.float32(np.nan)}
        graph.graph.initializer.extend(numpy_helper.from_array(np.array(each), name) for name, each in values.items())
        graph.graph.node.extend(
            [
                helper.make_node("Shape", ["images"], ["shape"]),
                helper.make_node("Gather", ["shape", "first"], ["size"]),
                helper.make_node("Equal", ["size", "seven"], ["is_seven"]),
                helper.make_node("Where", ["is_seven", "nan", "good"], ["logits"]),
            ]
        )

    edit(file, spoil)
    assert failures(file, network, digits) == {"batch sizes": "logits that are not numbers in a batch of 7"}


def test_a_network_that_gives_no_numbers_is_a_failed_check(file: Path, digits: Digits):
    broken = Linear().eval()
    torch.nn.init.constant_(broken.linear.weight, float("nan"))
    found = failures(file, broken, digits)
    count = len(digits.images)
    assert found["accuracy kept"] == f"{count} of {count} images have scores that are not numbers"


def test_a_file_that_is_no_model_fails_every_check(file: Path, network: Linear, digits: Digits):
    file.write_bytes(b"no model")
    assert list(failures(file, network, digits)) == NAMES


def dropout_of_an_unknown_mode(graph: onnx.ModelProto) -> None:
    graph.graph.initializer.append(TensorProto(name="mode", data_type=99))
    graph.graph.node.append(helper.make_node("Dropout", ["logits", "", "mode"], ["dropped"]))


def type_that_does_not_exist(graph: onnx.ModelProto) -> None:
    graph.graph.output[0].type.tensor_type.elem_type = 99


@pytest.mark.parametrize(
    ("change", "check", "figure"),
    [
        (dropout_of_an_unknown_mode, "training mode", "KeyError: 99"),
        (type_that_does_not_exist, "outputs", "logits of type 99"),
    ],
)
def test_a_file_that_cannot_be_looked_at_is_a_failed_check(
    file: Path, network: Linear, digits: Digits, change: Callable[[onnx.ModelProto], None], check: str, figure: str
):
    edit(file, change)
    checks = check_graph(Subject(file.read_bytes(), network, digits.images))
    assert {each.name: each.figure for each in checks if not each.passed}[check] == figure


def test_the_graph_can_be_checked_alone(exported: bytes, network: Linear, digits: Digits):
    checks = check_graph(Subject(exported, network, digits.images))
    assert [check.name for check in checks] == NAMES[:8]
    assert all(check.passed for check in checks)


CHECKS = [
    Check(name="parity", figure="0.5", bound="at most 0.0001", passed=False),
    Check(name="batch", figure="'batch'", bound="one symbol", passed=True),
    Check(name="labels", figure="9 of 10", bound="all", passed=False),
]


def test_failed_checks_are_named_with_figure_and_bound():
    with pytest.raises(VerificationFailed) as caught:
        require(CHECKS)
    assert str(caught.value) == "parity: found 0.5, expected at most 0.0001; labels: found 9 of 10, expected all"
    require(CHECKS[1:2])


def test_the_table_has_a_line_for_each_check():
    lines = format_checks(CHECKS).splitlines()
    assert lines[0].split() == ["CHECK", "RESULT", "FIGURE", "BOUND"]
    assert [line.split()[:2] for line in lines[2:]] == [
        ["parity", "FAILED"],
        ["batch", "passed"],
        ["labels", "FAILED"],
    ]


class Runtime:
    """Answers with what it is told to, in place of a file."""

    def __init__(self, answer: Callable[[np.ndarray], np.ndarray]) -> None:
        self.answer = answer

    def run(self, images: np.ndarray) -> Outputs:
        logits = self.answer(images).astype(np.float32)
        exponentials = np.exp(logits.astype(np.float64) / TEMPERATURE)
        return Outputs(logits, (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32))


def subject_of(answer: Callable[[np.ndarray], np.ndarray]) -> Subject:
    """Return 300 blank digits, whose logits are 0 to 9 by the network, and otherwise by the file."""
    subject = Subject(b"", Linear(), np.zeros((300, 28, 28), np.uint8))
    subject.reference = plain_logits
    subject.runtime = Runtime(answer)  # type: ignore[assignment]
    return subject


def plain_logits(images: np.ndarray) -> np.ndarray:
    return np.tile(np.arange(10, dtype=np.float32), (len(images), 1))


@pytest.mark.parametrize("size", [1, 2, 7, 64, 257])
@pytest.mark.parametrize("difference", [-2e-4, 2e-4])
def test_one_logit_that_is_off_at_one_batch_size_is_found(size: int, difference: float):
    def answer(images: np.ndarray) -> np.ndarray:
        logits = plain_logits(images)
        logits[-1, 0] += difference if len(images) == size else difference / 4
        return logits

    found = check_batch_sizes(subject_of(answer))
    assert (found.figure, found.passed) == ("0.0002", False)


def test_a_rounding_error_is_no_difference():
    assert check_batch_sizes(subject_of(lambda images: plain_logits(images) + np.float32(5e-5))).passed


def test_one_logit_that_another_run_gives_otherwise_is_found():
    runs: list[int] = []

    def answer(images: np.ndarray) -> np.ndarray:
        logits = plain_logits(images)
        logits[3, 4] += 1e-6 * len(runs)
        runs.append(len(images))
        return logits

    assert _repetition(subject_of(plain_logits)) == ("0 of 257 rows differ", True)
    assert _repetition(subject_of(answer)) == ("1 of 257 rows differ", False)


def test_probabilities_that_are_nearly_those_of_the_logits_are_found():
    subject = subject_of(plain_logits)
    assert check_probabilities(subject, TEMPERATURE).passed
    assert not check_probabilities(subject, TEMPERATURE * 1.0005).passed
    subject.outputs.probabilities[5, 2] += 2e-5
    assert not check_probabilities(subject, TEMPERATURE).passed
