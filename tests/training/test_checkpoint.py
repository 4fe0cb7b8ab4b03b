import logging
import os
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training import checkpoint
from training.architectures import build
from training.checkpoint import Checkpoint, EpochRecord, load, load_weights, path_of, save, siblings
from training.errors import CheckpointRejected
from training.recipe import find


@pytest.fixture
def trained() -> Checkpoint:
    """Return a checkpoint of a run of one step."""
    model = build("mnist-cnn")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.5)
    model(torch.zeros(2, 28, 28, dtype=torch.uint8)).sum().backward()
    optimizer.step()
    return Checkpoint(
        architecture="mnist-cnn",
        recipe=find("mnist-cnn", "seed"),
        seed=3,
        epoch=1,
        history=(EpochRecord(1, 0.5, 0.9, "test", 1.25),),
        state_dict=model.state_dict(),
        optimizer=optimizer.state_dict(),
        device="cpu",
    )


class Marker:
    """An object whose unpickling makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_what_was_saved_is_loaded(tmp_path: Path, trained: Checkpoint):
    path = tmp_path / "run" / "checkpoint.pt"
    save(trained, path)
    loaded = load(path)
    tensors = {"state_dict", "optimizer", "unaveraged"}
    for field in trained.__dataclass_fields__.keys() - tensors:
        assert getattr(loaded, field) == getattr(trained, field)
    assert loaded.state_dict.keys() == trained.state_dict.keys()
    assert all(torch.equal(loaded.state_dict[name], weight) for name, weight in trained.state_dict.items())
    momentum = loaded.optimizer["state"][0]["momentum_buffer"]
    assert torch.equal(momentum, trained.optimizer["state"][0]["momentum_buffer"])


def test_a_checkpoint_gives_its_network_in_evaluation_mode(trained: Checkpoint):
    model = trained.model()
    assert not model.training
    assert torch.equal(model.conv1.weight, trained.state_dict["conv1.weight"])


def test_a_bit_that_has_changed_is_noticed(tmp_path: Path, trained: Checkpoint):
    path = tmp_path / "checkpoint.pt"
    save(trained, path)
    weight = trained.state_dict["linear.weight"].numpy().tobytes()
    data = bytearray(path.read_bytes())
    data[data.index(weight) + len(weight) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointRejected, match="is damaged: copy it again, or train again"):
        load(path)


def test_saving_leaves_one_file(tmp_path: Path, trained: Checkpoint):
    save(trained, tmp_path / "checkpoint.pt")
    save(trained, tmp_path / "checkpoint.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_save_that_is_interrupted_leaves_the_old_file(tmp_path: Path, trained: Checkpoint, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    save(trained, path)

    def interrupted(content, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(trained, path)
    assert load(path).epoch == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_every_read_is_of_weights_only(tmp_path: Path, trained: Checkpoint, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    save(trained, path)
    seen = []
    read = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **options: seen.append(options) or read(*args, **options))
    load(path)
    load_weights(path, "mnist-cnn")
    assert [options["weights_only"] for options in seen] == [True, True]


def test_a_bare_state_dict_loads_for_its_architecture(tmp_path: Path):
    model = build("mnist-cnn")
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    loaded = load_weights(tmp_path / "weights.pt", "mnist-cnn")
    assert torch.equal(loaded.conv2.weight, model.conv2.weight)
    assert not loaded.training


def test_weights_of_a_checkpoint_load_for_its_architecture(tmp_path: Path, trained: Checkpoint):
    save(trained, tmp_path / "checkpoint.pt")
    loaded = load_weights(tmp_path / "checkpoint.pt", "mnist-cnn")
    assert torch.equal(loaded.conv1.weight, trained.state_dict["conv1.weight"])


def test_a_bare_state_dict_is_no_run_to_go_on_from(tmp_path: Path):
    torch.save(build("mnist-cnn").state_dict(), tmp_path / "weights.pt")
    with pytest.raises(CheckpointRejected, match=r"no checkpoint of a training run; .*--architecture"):
        load(tmp_path / "weights.pt")


def test_weights_of_another_network_are_refused_in_one_line(tmp_path: Path):
    torch.save(build("mnist-mlp").state_dict(), tmp_path / "weights.pt")
    with pytest.raises(CheckpointRejected, match=r"weights\.pt: the weights do not fit mnist-cnn") as caught:
        load_weights(tmp_path / "weights.pt", "mnist-cnn")
    assert "\n" not in str(caught.value)


def write_whole_model(path: Path):
    torch.save(build("mnist-cnn"), path)


def write_numpy_metric(path: Path):
    torch.save({"state_dict": build("mnist-cnn").state_dict(), "accuracy": np.float64(0.98)}, path)


def write_torchscript(path: Path):
    torch.jit.save(torch.jit.trace(build("mnist-cnn").eval(), torch.zeros(1, 28, 28, dtype=torch.uint8)), path)


def write_cut_off(path: Path):
    torch.save(build("mnist-cnn").state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_text(path: Path):
    path.write_text("these are not the weights you are looking for\n", encoding="utf-8")


def write_nothing(path: Path):
    path.touch()


def write_tensor(path: Path):
    torch.save(torch.zeros(3), path)


def write_legacy_whole_model(path: Path):
    torch.save(build("mnist-cnn"), path, _use_new_zipfile_serialization=False)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    ("write", "remedy"),
    [
        (write_whole_model, r"holds torch\.nn\.modules\.container\.Sequential, .*save `model\.state_dict\(\)`"),
        (write_numpy_metric, r"holds numpy\._core\.multiarray\.scalar, .*numbers as float\(\.\.\.\)"),
        (write_torchscript, r"is a TorchScript archive: save `module\.state_dict\(\)`"),
        (write_cut_off, "is cut off: copy it again, or train again"),
        (write_text, r"is no checkpoint: expected a file that torch\.save wrote"),
        (write_nothing, "is no checkpoint"),
        (write_tensor, "holds a Tensor, not a checkpoint or a state_dict"),
        (write_legacy_whole_model, r"holds torch\.nn\.modules\.container\.Sequential"),
    ],
)
def test_a_file_of_another_kind_is_refused_in_one_line_with_the_remedy(tmp_path: Path, write, remedy: str):
    path = tmp_path / "model.pt"
    write(path)
    for read in (load, lambda path: load_weights(path, "mnist-cnn")):
        with pytest.raises(CheckpointRejected, match=remedy) as caught:
            read(path)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(str(path))


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(CheckpointRejected, match=r"nothing\.pt cannot be read: No such file"):
        load(tmp_path / "nothing.pt")


def write_evil_archive(path: Path, marker: Path):
    torch.save({"format": 1, "state_dict": Marker(marker)}, path)


def write_evil_pickle(path: Path, marker: Path):
    path.write_bytes(pickle.dumps(Marker(marker)))


def write_evil_tar(path: Path, marker: Path):
    member = path.with_name("pickle")
    member.write_bytes(pickle.dumps(Marker(marker)))
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            archive.add(member, name)


@pytest.mark.parametrize("write", [write_evil_archive, write_evil_pickle, write_evil_tar])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path, write):
    path, marker = tmp_path / "evil.pt", tmp_path / "was-here"
    write(path, marker)
    with pytest.raises(CheckpointRejected):
        load(path)
    assert not marker.exists()


def test_a_checkpoint_with_another_recipe_of_fields_is_refused(tmp_path: Path, trained: Checkpoint):
    path = tmp_path / "checkpoint.pt"
    save(trained, path)
    content = torch.load(path, weights_only=True)
    content["recipe"]["gravity"] = 9.81
    torch.save(content, path)
    with pytest.raises(CheckpointRejected, match=r"another version of this program.*gravity"):
        load(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architecture": []}, "architecture: Input should be a valid string"),
        ({"epoch": "thirty"}, "epoch: Input should be a valid integer"),
        ({"epoch": -1}, "epoch: Input should be greater than or equal to 0"),
        ({"recipe": 3}, "recipe: Input should be a dictionary"),
        ({"min_accuracy": "a"}, "recipe.min_accuracy: Input should be a valid number"),
        ({"validation_size": -5}, "recipe.validation_size: Input should be greater than or equal to 0"),
        ({"history": [{"epoch": 1}]}, "history.0.loss: Field required"),
        ({"state_dict": {"conv1.weight": 3}}, "state_dict.conv1.weight: Input should be an instance of Tensor"),
    ],
)
def test_a_checkpoint_with_fields_of_another_type_is_refused_in_one_line(
    tmp_path: Path, trained: Checkpoint, fields: dict[str, object], message: str
):
    path = tmp_path / "checkpoint.pt"
    save(trained, path)
    content = torch.load(path, weights_only=True)
    inside = content["recipe"] if fields.keys() <= content["recipe"].keys() - content.keys() else content
    inside.update(fields)
    torch.save(content, path)
    with pytest.raises(CheckpointRejected, match=f"another version of this program: {message}") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_with_weights_of_another_network_is_refused(tmp_path: Path, trained: Checkpoint):
    path = tmp_path / "checkpoint.pt"
    save(trained, path)
    content = torch.load(path, weights_only=True)
    content["architecture"] = "mnist-mlp"
    torch.save(content, path)
    with pytest.raises(CheckpointRejected, match="the weights do not fit mnist-mlp"):
        load(path)


def test_the_format_is_numbered(tmp_path: Path, trained: Checkpoint):
    save(trained, tmp_path / "checkpoint.pt")
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["format"] == checkpoint.FORMAT


@pytest.fixture
def runs(tmp_path: Path, trained: Checkpoint) -> Path:
    """Return a folder of finished runs at seeds 3 and 4."""
    recipe = replace(trained.recipe, epochs=1)
    for seed in (3, 4):
        save(replace(trained, recipe=recipe, seed=seed), path_of(tmp_path, recipe, seed))
    return tmp_path


@pytest.mark.parametrize(
    ("folder", "path"),
    [
        (".", "mnist-cnn-seed-seed3/checkpoint.pt"),
        ("mnist-cnn-seed-seed3", "checkpoint.pt"),
        ("mnist-cnn-seed-seed3", "./checkpoint.pt"),
        ("mnist-cnn-seed-seed3/below", "../checkpoint.pt"),
    ],
)
def test_siblings_are_found_from_whatever_folder(runs: Path, monkeypatch, folder: str, path: str):
    (runs / folder).mkdir(exist_ok=True)
    monkeypatch.chdir(runs / folder)
    assert [other.seed for other in siblings(Path(path), load(Path(path)))] == [4]


def test_a_sibling_that_is_cut_off_is_left_out_with_a_warning(runs: Path, trained: Checkpoint, caplog):
    broken = path_of(runs, trained.recipe, 5)
    broken.parent.mkdir()
    write_cut_off(broken)
    path = path_of(runs, trained.recipe, 3)
    with caplog.at_level(logging.WARNING):
        assert [other.seed for other in siblings(path, load(path))] == [4]
    (said,) = caplog.messages
    assert said == f"left out of the comparison of seeds: {broken} is cut off: copy it again, or train again"


def test_a_run_that_has_epochs_before_it_is_no_sibling(runs: Path):
    path, other = (runs / f"mnist-cnn-seed-seed{seed}" / "checkpoint.pt" for seed in (3, 4))
    save(replace(load(other), epoch=0), other)
    assert siblings(path, load(path)) == []


def test_a_run_of_more_processes_is_no_sibling(runs: Path):
    path, other = (runs / f"mnist-cnn-seed-seed{seed}" / "checkpoint.pt" for seed in (3, 4))
    save(replace(load(other), processes=2), other)
    assert siblings(path, load(path)) == []
