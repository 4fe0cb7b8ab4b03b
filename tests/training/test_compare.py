import argparse
import os
import shutil
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from serving.repository import load
from serving.runtime import OnnxModel
from tests.conftest import Digits
from training import compare
from training.__main__ import main
from training.architectures import build
from training.checkpoint import Checkpoint, EpochRecord, path_of, save
from training.commands import train_all
from training.commands.compare import register
from training.mnist import Mnist
from training.publish import publish
from training.recipe import Recipe, find


def checkpoint(seed: int = 1, accuracy: float = 0.1) -> Checkpoint:
    torch.manual_seed(seed)
    recipe = Recipe(
        name="seed",
        architecture="mnist-cnn",
        epochs=1,
        batch_size=64,
        learning_rate=0.01,
        momentum=0.5,
        validation_size=0,
        min_accuracy=0.0,
    )
    history = (EpochRecord(1, 2.3, accuracy, "test", 1.0),)
    return Checkpoint("mnist-cnn", recipe, seed, 1, history, build("mnist-cnn").state_dict(), {}, "cpu")


@pytest.fixture(scope="module")
def models(test_digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository of one published version."""
    images, labels = (torch.tensor(array) for array in test_digits)
    data = Mnist(images[500:900], labels[500:900].long(), images[:500], labels[:500].long())
    folder = tmp_path_factory.mktemp("models")
    publish(checkpoint(), data, folder, lambda _: None)
    return folder


def test_a_row_has_the_models_figures_and_the_tutorials_stand_below(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compare, "MEASURE_S", 0.01)
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    arguments = parser.parse_args(["compare", "--models", str(models), "--threads", "1"])
    assert arguments.run(arguments) == 0
    header, _, row, tutorial = capsys.readouterr().out.splitlines()
    accuracy = load(models / "mnist-cnn" / "1", "cpu", 1).manifest.accuracy[0]
    assert header.startswith("MODEL")
    assert row.startswith("mnist-cnn 1")
    for figure in (f"{100 * accuracy.accuracy:.2f} %", "8,490", "kB"):
        assert figure in row
    assert "98 %" in tutorial


def test_a_damaged_version_is_named_and_keeps_no_other_from_its_row(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compare, "MEASURE_S", 0.01)
    for version in ("1", "2"):
        shutil.copytree(models / "mnist-cnn" / "1", tmp_path / "mnist-cnn" / version)
    (tmp_path / "mnist-cnn" / "1" / "model.onnx").write_bytes(b"cut off")
    manifest = tmp_path / "mnist-cnn" / "2" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": 1,', '"version": 2,'))
    assert main(["compare", "--models", str(tmp_path), "--threads", "1"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: mnist-cnn/1: size: found 7 bytes, expected ")
    assert captured.err.count("\n") == 1
    assert [line.split("  ")[0] for line in captured.out.splitlines()[2:]] == ["mnist-cnn 2", "the tutorial's network"]


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_a_place_without_models_is_an_error(tmp_path: Path, folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--models", str(tmp_path / folder)]) == 1
    assert capsys.readouterr() == ("", f"error: no models in {tmp_path / folder}\n")


def test_speed_counts_images_per_second(models: Path) -> None:
    runtime = OnnxModel(models / "mnist-cnn" / "1" / "model.onnx", "cpu", 1)
    ticks = count(0, 1)
    # One second passes between two looks at the clock: one batch is run, and two seconds are gone.
    speed = compare.measure_speed(runtime, lambda: next(ticks) * (compare.MEASURE_S * 0.75))
    seconds = 2 * compare.MEASURE_S * 0.75
    assert speed.single == pytest.approx(1 / seconds)
    assert speed.batched == pytest.approx(256 / seconds)


def test_the_plan_makes_every_recipe() -> None:
    from training.recipe import RECIPES

    planned = {find(architecture, recipe) for architecture, recipe, _ in train_all.PLAN}
    assert planned == set(RECIPES)


def test_the_seed_that_validation_likes_best_is_published_the_first_of_equals(tmp_path: Path) -> None:
    paths = []
    for seed, accuracy in ((1, 0.2), (2, 0.4), (3, 0.4)):
        made = checkpoint(seed, accuracy)
        paths.append(path_of(tmp_path, made.recipe, seed))
        save(made, paths[-1])
    assert train_all.best_of(paths) == paths[1]


def watch_pool(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Semaphore]:
    """Return what is set when the trainings that have not begun are given up, and what counts those that are to run."""
    given_up, submitted = threading.Event(), threading.Semaphore(0)

    class Pool(ThreadPoolExecutor):
        def submit(self, *arguments: Any, **options: Any) -> Future[Any]:
            future = super().submit(*arguments, **options)
            submitted.release()
            return future

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            given_up.set()
            super().shutdown(wait)

    monkeypatch.setattr(train_all, "ThreadPoolExecutor", Pool)
    return given_up, submitted


def test_everything_is_trained_then_the_best_published_and_a_failure_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    failing = ""

    def run(arguments: list[str]) -> int:
        commands.append(arguments)
        if arguments[0] == "train":
            seed = int(arguments[arguments.index("--seed") + 1])
            made = replace(checkpoint(seed, seed / 10), recipe=find(arguments[1], "seed"))
            save(made, path_of(tmp_path, made.recipe, seed))
        if failing and len(commands) > 1:
            assert given_up.wait(30)  # for the first has failed meanwhile
        return 3 if arguments[0] == failing else 0

    given_up, _ = watch_pool(monkeypatch)
    monkeypatch.setattr(train_all, "_command", run)
    monkeypatch.setattr(train_all, "PLAN", (("mnist-cnn", "seed", (1, 2)), ("mnist-lenet5", "seed", (1,))))
    monkeypatch.setattr("training.commands.fetch_data.run", lambda _: 0)
    parser = argparse.ArgumentParser()
    train_all.register(parser.add_subparsers())
    line = ["train-all", "--jobs", "1", "--output", str(tmp_path), "--models", str(tmp_path), "--data", str(tmp_path)]
    arguments = parser.parse_args(line)
    assert arguments.run(arguments) == 0
    assert [command[:2] for command in commands[:3]] == [
        ["train", name] for name in ("mnist-cnn", "mnist-cnn", "mnist-lenet5")
    ]
    assert [command[0] for command in commands[3:]] == ["publish", "publish"]
    assert "mnist-cnn-seed-seed2" in commands[3][1]
    assert "mnist-lenet5-seed-seed1" in commands[4][1]
    assert all("--once" in command for command in commands[3:])
    assert all("--resume" not in command for command in commands)

    commands.clear()
    given_up.clear()
    failing = "train"
    assert arguments.run(arguments) == 3
    assert {command[0] for command in commands} == {"train"}
    assert len(commands) <= 2
    assert all("--resume" in command for command in commands)


@pytest.mark.parametrize(("ends", "code"), [(lambda: 3, 3), (lambda: os.kill(os.getpid(), signal.SIGINT) or 0, 130)])
def test_a_failure_or_ctrl_c_beside_a_longer_training_keeps_others_from_beginning(
    ends: Callable[[], int], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    given_up, submitted = watch_pool(monkeypatch)

    def run(arguments: list[str]) -> int:
        begun.append(seed := arguments[arguments.index("--seed") + 1])
        if seed == "2":
            assert all(submitted.acquire(timeout=30) for _ in range(4))
            return ends()
        # Also the third, which may begin before the end of the second is known.
        assert given_up.wait(30)
        return 0

    monkeypatch.setattr(train_all, "_command", run)
    monkeypatch.setattr(train_all, "PLAN", (("mnist-cnn", "seed", (1, 2, 3, 4)),))
    monkeypatch.setattr("training.commands.fetch_data.run", lambda _: 0)
    # What a shell starts in the background ignores SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        folders = ["--output", str(tmp_path), "--models", str(tmp_path), "--data", str(tmp_path)]
        assert main(["train-all", *folders]) == code
    finally:
        signal.signal(signal.SIGINT, before)
    assert "4" not in begun


def test_speed_of_an_empty_picture_is_finite(models: Path) -> None:
    runtime = OnnxModel(models / "mnist-cnn" / "1" / "model.onnx", "cpu", 1)
    assert np.isfinite(list(vars(compare.measure_speed(runtime)).values())).all()
