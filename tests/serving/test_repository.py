import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from serving import repository
from serving.errors import ModelNotFound, ModelRejected
from serving.manifest import FILE_NAME, MODEL_FILE_NAME, FileRecord, Manifest, read_manifest
from serving.repository import Repository, load
from serving.runtime import OnnxModel
from tests.serving.tiny_model import expected_logits, tiny_graph, tiny_manifest, write_tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path, "tiny", 3)


def rejection(folder: Path) -> ModelRejected:
    with pytest.raises(ModelRejected) as caught:
        load(folder, "cpu")
    return caught.value


def replace_graph(folder: Path, change: Callable[[onnx.ModelProto], None], **changes: object) -> None:
    """Put a changed graph there, with a manifest that vouches for it."""
    graph = tiny_graph()
    change(graph)
    model = graph.SerializeToString()
    (folder / MODEL_FILE_NAME).write_bytes(model)
    tiny_manifest(model, folder.parent.name, int(folder.name), **changes).write(folder)


def test_a_whole_version_loads_and_runs(folder: Path):
    model = load(folder, "cpu", 1)
    images = np.random.default_rng(2).integers(0, 256, (5, 28, 28), np.uint8)
    assert (model.name, model.version, model.folder) == ("tiny", "3", folder)
    np.testing.assert_allclose(model.runtime.run(images).logits, expected_logits(images), atol=1e-4)


def test_what_was_hashed_runs_on_the_device_and_the_threads_that_were_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    made: list[object] = []

    def make(model: bytes, device: str, threads: int | None) -> OnnxModel:
        made.append((model, device, threads))
        return OnnxModel(model, "cpu", threads)

    monkeypatch.setattr(repository, "OnnxModel", make)
    load(folder, "cuda", 3)
    assert made == [((folder / MODEL_FILE_NAME).read_bytes(), "cuda", 3)]


def test_a_version_may_be_named_from_within_its_model(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder.parent)
    assert load(Path("3"), "cpu", 1).version == "3"


def test_one_changed_byte_is_found(folder: Path):
    model = bytearray((folder / MODEL_FILE_NAME).read_bytes())
    model[len(model) // 2] ^= 1
    (folder / MODEL_FILE_NAME).write_bytes(model)
    error = rejection(folder)
    assert (error.check, error.found) == ("SHA-256", hashlib.sha256(model).hexdigest())


def test_a_truncated_file_is_found_by_its_size(folder: Path):
    size = (folder / MODEL_FILE_NAME).stat().st_size
    os.truncate(folder / MODEL_FILE_NAME, size - 10)
    assert str(rejection(folder)) == f"size: found {size - 10} bytes, expected {size} bytes"


@pytest.mark.parametrize("name", [FILE_NAME, MODEL_FILE_NAME])
def test_a_missing_file_is_named(folder: Path, name: str):
    (folder / name).unlink()
    assert str(rejection(folder)).startswith(f"place: found no file {name}")


@pytest.mark.parametrize("name", [FILE_NAME, MODEL_FILE_NAME])
def test_a_link_in_place_of_a_file_is_refused(folder: Path, name: str):
    (folder / name).rename(folder.parent.parent / name)
    (folder / name).symlink_to(folder.parent.parent / name)
    assert rejection(folder).found == f"{name} is a link"


def test_a_folder_in_place_of_the_file_is_refused(folder: Path):
    (folder / MODEL_FILE_NAME).unlink()
    (folder / MODEL_FILE_NAME).mkdir()
    assert rejection(folder).check == "place"


def test_a_manifest_that_names_another_file_is_refused(folder: Path):
    manifest = read_manifest(folder)
    record = FileRecord(name="../4/model.onnx", sha256=manifest.file.sha256, size_bytes=manifest.file.size_bytes)
    manifest.model_copy(update={"file": record}).write(folder)
    assert rejection(folder).check == "file name"


@pytest.mark.parametrize("place", ["tiny/4", "other/3"])
def test_a_version_copied_to_another_place_is_refused(folder: Path, place: str):
    target = folder.parent.parent / place
    target.parent.mkdir(exist_ok=True)
    folder.rename(target)
    assert str(rejection(target)).startswith(f"name and version: found tiny/3 in the manifest, expected {place}")


def test_bytes_that_are_no_model_are_refused_before_the_runtime_sees_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delattr(repository, "OnnxModel")
    (folder / MODEL_FILE_NAME).write_bytes(b"\xff no model")
    tiny_manifest(b"\xff no model", "tiny", 3).write(folder)
    assert rejection(folder).check == "format"


def test_external_data_are_refused_before_the_runtime_sees_them(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def point_outside(graph: onnx.ModelProto) -> None:
        weights = graph.graph.initializer[2]
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value="../secret.bin")

    monkeypatch.delattr(repository, "OnnxModel")
    replace_graph(folder, point_outside)
    assert str(rejection(folder)).startswith("external data: found weights in ../secret.bin")


def test_a_foreign_operator_is_refused_before_the_runtime_sees_it(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def add_foreign(graph: onnx.ModelProto) -> None:
        graph.opset_import.append(helper.make_opsetid("com.microsoft", 1))
        graph.graph.node.append(helper.make_node("Gelu", ["logits"], ["unused"], domain="com.microsoft"))

    monkeypatch.delattr(repository, "OnnxModel")
    replace_graph(folder, add_foreign)
    assert "com.microsoft.Gelu" in rejection(folder).found


def test_a_fixed_batch_size_is_refused(folder: Path):
    def fix(graph: onnx.ModelProto) -> None:
        graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2

    replace_graph(folder, fix)
    error = rejection(folder)
    assert str(error) == "inputs: found images uint8 [2,28,28], expected images uint8 [batch,28,28]"


def test_a_manifest_with_other_tensors_than_the_file_is_refused(folder: Path):
    manifest = read_manifest(folder)
    manifest.model_copy(update={"outputs": manifest.outputs[:1]}).write(folder)
    assert str(rejection(folder)).startswith("outputs: found logits float32 [batch,10] in the manifest")


@pytest.mark.parametrize("field", ["ir_version", "opset"])
def test_a_file_newer_than_the_runtime_is_refused(folder: Path, field: str):
    def make_newer(graph: onnx.ModelProto) -> None:
        if field == "opset":
            graph.opset_import[0].version = 99
        else:
            graph.ir_version = 99

    replace_graph(folder, make_newer)
    assert rejection(folder).found == "99"


def off_by(folder: Path, difference: float) -> Manifest:
    manifest = read_manifest(folder)
    digit = manifest.golden[7]
    logits = [*digit.logits[:4], digit.logits[4] + difference, *digit.logits[5:]]
    golden = [*manifest.golden[:7], digit.model_copy(update={"logits": logits}), *manifest.golden[8:]]
    return manifest.model_copy(update={"golden": golden})


@pytest.mark.parametrize("difference", [2e-3, -1.0])
def test_golden_digits_that_come_out_otherwise_refuse_the_model(folder: Path, difference: float):
    off_by(folder, difference).write(folder)
    error = rejection(folder)
    assert (error.check, error.expected) == ("golden digits", "at most 0.001")


def test_a_graph_whose_logits_are_no_numbers_is_refused(folder: Path):
    def spoil(graph: onnx.ModelProto) -> None:
        graph.graph.initializer[2].CopyFrom(
            onnx.numpy_helper.from_array(np.full((784, 10), np.nan, np.float32), "weights")
        )

    replace_graph(folder, spoil)
    assert rejection(folder).found == "logits off by nan"


def test_golden_digits_may_differ_by_rounding(folder: Path):
    off_by(folder, 5e-4).write(folder)
    assert load(folder, "cpu").version == "3"


def test_a_graph_that_fails_on_the_golden_digits_is_refused(folder: Path):
    def break_reshape(graph: onnx.ModelProto) -> None:
        graph.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(np.array([7, -1]), "rows"))

    replace_graph(folder, break_reshape)
    error = rejection(folder)
    assert error.check == "golden digits"
    assert error.found.startswith("the model failed on uint8 (20, 28, 28)")


@pytest.fixture
def models(tmp_path: Path) -> Repository:
    for place in ("b/2", "b/10", "b/1", "a/1", ".hidden/1", "empty", "b/latest", "b/.staging-1", "b/01", "b/0", "b/²"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "SHA256SUMS").write_text("a file")
    (tmp_path / "b" / "7").write_text("a file")
    (tmp_path / "b" / "config.pbtxt").write_text("a file")
    return Repository(tmp_path)


def test_versions_are_the_whole_numbers_in_order(models: Repository):
    assert models.names() == ["a", "b"]
    assert models.versions("b") == [1, 2, 10]
    assert models.versions("empty") == []


def test_the_lost_and_found_of_a_volume_which_only_root_may_look_into_is_no_model(models: Repository):
    names = models.names()
    lost = models.root / "lost+found"
    (lost / "1").mkdir(parents=True)
    lost.chmod(0)  # root, whose folders have versions whatever their mode, must not look either
    assert models.names() == names
    assert models.versions("lost+found") == []
    lost.chmod(0o700)


def test_the_largest_version_is_the_latest(models: Repository):
    assert models.folder("b") == models.root / "b" / "10"
    assert models.folder("b", 2) == models.root / "b" / "2"


def test_a_model_that_vanishes_while_it_is_looked_at_has_no_versions(
    models: Repository, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(models, "_folders", lambda: ["a", "gone"])
    assert models.versions("gone") == []
    assert models.names() == ["a"]


@pytest.mark.parametrize("name", ["c", "", ".", "..", "../b", "b/1", "/b", ".hidden", "x" * 5000, "\0", "empty"])
def test_an_unknown_name_is_not_found_whatever_it_holds(models: Repository, name: str):
    with pytest.raises(ModelNotFound, match="there are: a, b"):
        models.folder(name)


@pytest.mark.parametrize("version", [0, 3])
def test_an_unknown_version_is_not_found(models: Repository, version: int):
    with pytest.raises(ModelNotFound, match=f"no version {version} of b; there are: 1, 2, 10"):
        models.folder("b", version)


def test_a_version_outside_the_repository_is_refused(models: Repository, tmp_path_factory: pytest.TempPathFactory):
    outside = tmp_path_factory.mktemp(models.root.name)
    (models.root / "a" / "2").symlink_to(outside)
    with pytest.raises(ModelRejected, match="a/2 is a link out of the repository"):
        models.folder("a")


def test_a_repository_that_is_not_there_is_empty(tmp_path: Path):
    assert Repository(tmp_path / "none").names() == []
    with pytest.raises(ModelNotFound, match="there are: none"):
        Repository(tmp_path / "none").folder("a")
