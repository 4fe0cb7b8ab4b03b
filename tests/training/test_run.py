from dataclasses import replace
from pathlib import Path

import pytest
import torch

from serving.repository import Repository, load
from tests.conftest import DATA
from training.__main__ import main
from training.architectures import build
from training.checkpoint import Checkpoint, save
from training.checkpoint import load as load_checkpoint
from training.commands import fetch_data, publish, train
from training.recipe import find

pytestmark = pytest.mark.usefixtures("test_digits")  # which says how to get the data if they are missing


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the checkpoint of a network that has learned nothing."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("runs") / "checkpoint.pt"
    weights = build("mnist-cnn").state_dict()
    recipe = find("mnist-cnn", "seed")
    save(Checkpoint("mnist-cnn", recipe, 1, recipe.epochs, (), weights, {}, "cpu"), path)
    return path


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("exported") / "new" / "model.onnx"
    assert main(["export", str(checkpoint), "--output", str(output), "--temperature", "1.5"]) == 0
    return output


def results(printed: str) -> dict[str, str]:
    """Return what a table of checks says of each check, whose name may hold spaces."""
    rows = [line.split("  ") for line in printed.splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    return {row[0]: row[1] for row in cells if len(row) > 1 and row[1] in {"passed", "FAILED"}}


def test_export_leaves_one_file(exported: Path):
    assert list(exported.parent.iterdir()) == [exported]


def test_a_bare_state_dict_is_exported_with_its_architecture(
    checkpoint: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    torch.save(load_checkpoint(checkpoint).state_dict, tmp_path / "weights.pt")
    arguments = ["export", str(tmp_path / "weights.pt"), "--output", str(tmp_path / "model.onnx")]
    assert main([*arguments, "--architecture", "mnist-cnn", "--temperature", "1.5"]) == 0
    assert set(results(capsys.readouterr().out).values()) == {"passed"}
    assert (tmp_path / "model.onnx").read_bytes() == exported.read_bytes()
    assert main(arguments) == 1


def test_an_export_that_fails_its_checks_leaves_the_old_file(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "model.onnx").write_bytes(b"the old one")
    monkeypatch.setattr("training.export.export", lambda _, path, __: path.write_bytes(b"no model"))
    assert main(["export", str(checkpoint), "--output", str(tmp_path / "model.onnx")]) == 1
    assert "error: single file: found bytes that are no ONNX model" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == b"the old one"


def verify(checkpoint: Path, file: Path) -> int:
    return main(["verify", str(checkpoint), str(file), "--temperature", "1.5", "--data", str(DATA)])


def test_verify_says_which_check_failed_and_by_how_much(
    checkpoint: Path, exported: Path, capsys: pytest.CaptureFixture[str]
):
    assert verify(checkpoint, exported) == 1
    captured = capsys.readouterr()
    assert {name for name, result in results(captured.out).items() if result == "FAILED"} == {"accuracy"}
    assert captured.err.startswith("error: accuracy: found 0.")
    assert captured.err.endswith("expected at least the recipe's floor, 0.985\n")


def test_verify_without_a_file_is_one_line(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert verify(checkpoint, tmp_path / "none.onnx") == 1
    assert capsys.readouterr().err == f"error: no file {tmp_path / 'none.onnx'}\n"


def test_publish_refuses_a_network_under_its_floor(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    models = tmp_path / "models"
    assert main(["publish", str(checkpoint), "--models", str(models), "--data", str(DATA)]) == 1
    captured = capsys.readouterr()
    assert results(captured.out)["accuracy"] == "FAILED"
    assert "expected at least the recipe's floor" in captured.err
    assert Repository(models).names() == []


def test_publish_refuses_an_unfinished_run_in_one_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    save(replace(load_checkpoint(checkpoint), epoch=3), tmp_path / "checkpoint.pt")
    command = ["publish", str(tmp_path / "checkpoint.pt"), "--models", str(tmp_path / "models"), "--data", str(DATA)]
    assert main(command) == 1
    said = "error: the checkpoint has 3 of 10 epochs behind it: the same `train` command with --resume goes on\n"
    assert capsys.readouterr().err == said
    assert not (tmp_path / "models").exists()


@pytest.mark.slow
def test_run_does_the_whole_road_and_a_second_run_goes_on_from_it_and_publishes_nothing_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    lower_the_floor(monkeypatch)
    arguments = ["run", "mnist-cnn", "--epochs", "1", "--seed", "1", "--data", str(DATA)]
    arguments += ["--output", str(tmp_path / "runs"), "--models", str(tmp_path / "models")]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert "[1, 300] loss: " in first
    assert set(results(first).values()) == {"passed"}
    assert first.splitlines()[-1] == f"published: {tmp_path / 'models' / 'mnist-cnn' / '1'}"
    assert [path.name for path in (tmp_path / "runs").rglob("*.pt")] == ["checkpoint.pt"]

    assert main(arguments) == 0
    second = capsys.readouterr().out
    assert "loss: " not in second
    assert second.splitlines()[-1] == f"published already: {tmp_path / 'models' / 'mnist-cnn' / '1'}"
    assert Repository(tmp_path / "models").versions("mnist-cnn") == [1]
    version = load(tmp_path / "models" / "mnist-cnn" / "1", "cpu")
    assert version.manifest.accuracy[0].accuracy >= 0.96  # the tutorial's, after one epoch


def lower_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a recipe publish what one epoch gives."""
    lenient = replace(find("mnist-cnn", "seed"), min_accuracy=0.9)
    monkeypatch.setattr("training.recipe.find", lambda *_: lenient)


@pytest.mark.parametrize("code", [1, 130])
def test_run_stops_at_the_first_step_that_fails(monkeypatch: pytest.MonkeyPatch, code: int):
    monkeypatch.setattr(fetch_data, "run", lambda _: code)
    assert main(["run", "mnist-cnn", "--output", "nowhere"]) == code


@pytest.mark.parametrize(
    ("environment", "steps"),
    [
        ({}, ["fetch", "train", "publish"]),
        ({"WORLD_SIZE": "1"}, ["fetch", "train", "publish"]),
        ({"WORLD_SIZE": "2", "RANK": "0"}, ["fetch", "train", "publish"]),
        ({"WORLD_SIZE": "2", "RANK": "1"}, ["fetch", "train"]),
    ],
)
def test_of_several_processes_the_first_publishes(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], steps: list[str]
):
    done: list[str] = []
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name, module in (("fetch", fetch_data), ("train", train), ("publish", publish)):
        monkeypatch.setattr(module, "run", lambda _, name=name: done.append(name) or 0)
    assert main(["run", "mnist-cnn", "--output", "nowhere"]) == 0
    assert done == steps
