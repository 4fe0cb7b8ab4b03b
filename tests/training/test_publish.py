import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from google.protobuf import text_format
from onnx import numpy_helper
from tritonclient.grpc.model_config_pb2 import TYPE_FP32, TYPE_UINT8, ModelConfig

from serving.errors import ModelRejected
from serving.manifest import LAYERS_FILE_NAME, MODEL_FILE_NAME, Check, Manifest
from serving.repository import Repository, load
from tests.conftest import DATA
from tests.conftest import Digits as TestDigits
from training import publish as publish_module
from training.architectures import build
from training.checkpoint import Checkpoint, save
from training.export import export
from training.mnist import Mnist
from training.publish import STAGING_PREFIX, publish, triton_config
from training.recipe import Recipe
from training.verify import VerificationFailed

NAME = "mnist-cnn"
COMMITTED = Path(__file__).parents[2] / "models"


def ignore(checks: list[Check]) -> None:
    """Take no notice of the checks."""


@pytest.fixture(scope="module")
def data(test_digits: TestDigits) -> Mnist:
    """Return the first 1,000 test digits as test set, the others as training set."""
    images, labels = (torch.tensor(array) for array in test_digits)
    labels = labels.long()
    return Mnist(images[1000:], labels[1000:], images[:1000], labels[:1000])


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    """Return a network that has learned nothing, whose recipe does not mind."""
    torch.manual_seed(0)
    recipe = Recipe(
        name="seed",
        architecture=NAME,
        epochs=1,
        batch_size=64,
        learning_rate=0.01,
        momentum=0.5,
        validation_size=0,
        min_accuracy=0.0,
    )
    weights = build(NAME).state_dict()
    return Checkpoint(
        architecture=NAME, recipe=recipe, seed=7, epoch=1, history=(), state_dict=weights, optimizer={}, device="cpu"
    )


@pytest.fixture(scope="module")
def models(checkpoint: Checkpoint, data: Mnist, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository with one version, published under the strictest umask."""
    models = tmp_path_factory.mktemp("published") / "models"
    models.mkdir()
    before = os.umask(0o077)
    try:
        publish(checkpoint, data, models, ignore, temperature=1.5)
    finally:
        os.umask(before)
    return models


@pytest.fixture(scope="module")
def manifest(models: Path) -> Manifest:
    return load(models / NAME / "1", "cpu").manifest


@pytest.fixture
def quick_export(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the file that was exported once, instead of exporting again."""
    content = (models / NAME / "1" / MODEL_FILE_NAME).read_bytes()
    layers = (models / NAME / "1" / LAYERS_FILE_NAME).read_bytes()
    monkeypatch.setattr(publish_module, "export", lambda _, path, __: path.write_bytes(content))
    monkeypatch.setattr(publish_module, "export_layers", lambda _, path: path.write_bytes(layers))


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


FILES = [
    "MODEL_CARD.md",
    "confusion.png",
    "curves.png",
    "layers.onnx",
    "manifest.json",
    "misread.png",
    "model.onnx",
    "reliability.png",
    "report.html",
    "risk_coverage.png",
]
VERSION_1 = ["SHA256SUMS", NAME, f"{NAME}/1", *(f"{NAME}/1/{name}" for name in FILES), f"{NAME}/config.pbtxt"]


def test_a_published_version_is_all_there_and_nothing_else(models: Path):
    assert everything(models) == VERSION_1
    assert Repository(models).versions(NAME) == [1]


def test_another_user_may_read_it_whatever_the_umask(models: Path):
    modes = {path: stat.S_IMODE((models / path).stat().st_mode) for path in VERSION_1}
    assert modes == {path: 0o755 if (models / path).is_dir() else 0o644 for path in VERSION_1}


def test_the_manifest_says_how_the_model_came_about(manifest: Manifest, checkpoint: Checkpoint):
    training = manifest.training
    assert (manifest.name, manifest.version, manifest.temperature) == (NAME, 1, 1.5)
    assert (training.recipe, training.seed, training.epochs, training.parameters) == ("seed", 7, 1, 8490)
    assert training.hyperparameters == checkpoint.recipe.hyperparameters()
    assert set(training.packages) == {"torch", "numpy", "onnx", "onnxscript", "onnxruntime"}
    assert len(training.dataset_sha256) == 4
    assert (manifest.acceptance.min_confidence, manifest.acceptance.chosen_on) == (0.5, "default")


def test_the_manifest_vouches_for_the_file(manifest: Manifest, models: Path):
    model = (models / NAME / "1" / MODEL_FILE_NAME).read_bytes()
    assert (manifest.file.sha256, manifest.file.size_bytes) == (hashlib.sha256(model).hexdigest(), len(model))
    graph = onnx.load_model_from_string(model)
    assert (manifest.opset, manifest.ir_version) == (graph.opset_import[0].version, graph.ir_version)


def test_the_manifest_holds_every_check_with_its_figure(manifest: Manifest):
    assert len(manifest.checks) == 17
    assert all(check.passed and check.figure and check.bound for check in manifest.checks)


def test_the_accuracy_is_that_of_the_network(manifest: Manifest, checkpoint: Checkpoint, data: Mnist):
    correct = int((checkpoint.model()(data.test_images).argmax(dim=1) == data.test_labels).sum())
    record = manifest.accuracy[0]
    assert (record.split, record.correct, record.total, record.accuracy) == ("test", correct, 1000, correct / 1000)
    assert record.interval_95[0] < record.accuracy < record.interval_95[1]


def test_golden_digits_are_the_first_two_of_each_digit(manifest: Manifest, checkpoint: Checkpoint, data: Mnist):
    assert [digit.label for digit in manifest.golden] == [digit for digit in range(10) for _ in range(2)]
    for digit in range(10):
        images = data.test_images[data.test_labels == digit][:2]
        golden = manifest.golden[2 * digit : 2 * digit + 2]
        np.testing.assert_array_equal(np.stack([entry.image() for entry in golden]), images.numpy())
        logits = checkpoint.model()(images).detach().numpy()
        np.testing.assert_allclose([entry.logits for entry in golden], logits, atol=1e-5)


def test_the_reference_is_the_training_set(manifest: Manifest, data: Mnist):
    reference, ink = manifest.reference, data.train_images.float().mean(dim=(1, 2)).numpy()
    np.testing.assert_allclose(reference.digits, np.bincount(data.train_labels) / 9000)
    edges = reference.ink_edges
    assert (edges[0], edges[-1], len(edges), edges) == (0, 255, 11, sorted(edges))
    for low, high, share in zip(edges[:-1], edges[1:], reference.ink, strict=True):
        assert share == pytest.approx(((ink >= low) & (ink < high)).mean(), abs=1e-3)
    assert sum(reference.ink) == pytest.approx(1)


def test_tritons_configuration_is_one_that_triton_reads(models: Path):
    text = (models / NAME / "config.pbtxt").read_text()
    assert text == triton_config(NAME)
    config = text_format.Parse(text, ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == (NAME, "onnxruntime", 256)
    assert config.HasField("dynamic_batching")
    assert config.version_policy.HasField("all")
    tensors = [(tensor.name, tensor.data_type, list(tensor.dims)) for tensor in (*config.input, *config.output)]
    assert tensors == [
        ("images", TYPE_UINT8, [28, 28]),
        ("logits", TYPE_FP32, [10]),
        ("probabilities", TYPE_FP32, [10]),
    ]


@pytest.mark.parametrize("name", Repository(COMMITTED).names())
def test_the_committed_configurations_are_those_that_a_publication_writes(name: str):
    assert (COMMITTED / name / "config.pbtxt").read_text(encoding="utf-8") == triton_config(name)


@pytest.mark.usefixtures("quick_export")
def test_the_next_version_is_behind_the_largest_number_in_use(checkpoint: Checkpoint, data: Mnist, tmp_path: Path):
    (tmp_path / NAME / "3").mkdir(parents=True)
    (tmp_path / NAME / "3" / "kept").touch()
    (tmp_path / NAME / "8").touch()
    (tmp_path / NAME / "latest").mkdir()
    reported: list[Check] = []
    folder = publish(checkpoint, data, tmp_path, reported.extend, temperature=1.5)
    assert folder == tmp_path / NAME / "9"
    assert load(folder, "cpu").version == "9"
    assert f"{NAME}/9/model.onnx" in (tmp_path / "SHA256SUMS").read_text(encoding="utf-8")
    assert len(reported) == 17
    assert everything(tmp_path / NAME / "3") == ["kept"]


def damage(change: Callable[[np.ndarray], np.ndarray]) -> Callable[..., None]:
    def export_damaged(model: torch.nn.Module, path: Path, temperature: float) -> None:
        export(model, path, temperature)
        graph = onnx.load(path)
        tensor = next(tensor for tensor in graph.graph.initializer if tensor.name == "network.linear.weight")
        tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), tensor.name))
        path.write_bytes(graph.SerializeToString())

    return export_damaged


def test_a_failed_check_publishes_nothing_and_is_reported(
    checkpoint: Checkpoint, data: Mnist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(publish_module, "export", damage(lambda weight: weight * np.float32(1.1)))
    reported: list[Check] = []
    with pytest.raises(VerificationFailed, match=r"parity: found 0\.\d+, 1000 digits, expected logits within 0\.0001"):
        publish(checkpoint, data, tmp_path, reported.extend)
    assert "parity" in {check.name for check in reported if not check.passed}
    assert everything(tmp_path) == []


def test_an_accuracy_under_the_floor_publishes_nothing(
    checkpoint: Checkpoint, data: Mnist, models: Path, tmp_path: Path, quick_export: None
):
    strict = Checkpoint(**{**vars(checkpoint), "recipe": Recipe(**{**vars(checkpoint.recipe), "min_accuracy": 0.985})})
    with pytest.raises(VerificationFailed, match=r"^accuracy: found 0\.\d+ .*, expected at least .*, 0\.985$"):
        publish(strict, data, tmp_path, ignore, temperature=1.5)
    assert everything(tmp_path) == []


@pytest.mark.usefixtures("quick_export")
def test_a_version_that_does_not_load_is_not_published(
    checkpoint: Checkpoint, data: Mnist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(folder: Path, device: str) -> None:
        assert sorted(path.name for path in folder.iterdir()) == FILES
        raise ModelRejected("golden digits", "others", "these")

    monkeypatch.setattr(publish_module.repository, "load", refuse)
    with pytest.raises(ModelRejected, match="golden digits"):
        publish(checkpoint, data, tmp_path, ignore, temperature=1.5)
    assert everything(tmp_path) == []


@pytest.mark.usefixtures("quick_export")
def test_publishers_at_the_same_time_get_a_version_each(checkpoint: Checkpoint, data: Mnist, tmp_path: Path):
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(publish, checkpoint, data, tmp_path, ignore, temperature=1.5) for _ in range(4)]
        versions = sorted(job.result().name for job in jobs)
    assert versions == ["1", "2", "3", "4"]
    assert {load(tmp_path / NAME / version, "cpu").version for version in versions} == set(versions)
    assert list((tmp_path / NAME).glob(".*")) == []


# Publish, but be killed when everything is staged, just before the rename.
PUBLISH_AND_DIE = """
import os, sys
from training import publish
from training.__main__ import main

publish.verify = lambda *arguments, **keywords: []
publish._write_config = lambda *arguments: os._exit(9)
main(["publish", sys.argv[1], "--models", sys.argv[2], "--data", sys.argv[3]])
"""


@pytest.mark.usefixtures("quick_export")
def test_a_publisher_that_is_killed_leaves_only_a_hidden_folder_and_the_next_one_removes_it(
    checkpoint: Checkpoint, data: Mnist, tmp_path: Path
):
    save(checkpoint, tmp_path / "checkpoint.pt")
    models = tmp_path / "models"
    command = [sys.executable, "-c", PUBLISH_AND_DIE, str(tmp_path / "checkpoint.pt"), str(models), str(DATA)]
    killed = subprocess.run(command, cwd=DATA.parent, check=False, timeout=120, stdout=subprocess.DEVNULL)
    assert killed.returncode == 9
    (left_over,) = (models / NAME).iterdir()
    assert left_over.name.startswith(STAGING_PREFIX)
    assert Repository(models).names() == []
    assert publish(checkpoint, data, models, ignore, temperature=1.5).name == "1"
    assert everything(models) == VERSION_1
