"""What a publication leaves when it is broken off between its renames, refused, or asked for again."""

import errno
import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from serving.manifest import LAYERS_FILE_NAME, MODEL_FILE_NAME
from tests.conftest import Digits
from training import mnist
from training import publish as publish_module
from training.__main__ import main
from training.architectures import build
from training.checkpoint import Checkpoint, save
from training.checksums import FILE_NAME, checksums
from training.errors import CheckpointRejected
from training.mnist import Mnist
from training.publish import find_published, publish
from training.recipe import find

NAME = "mnist-cnn"


@pytest.fixture(scope="module")
def data(test_digits: Digits) -> Mnist:
    images, labels = (torch.tensor(array) for array in test_digits)
    return Mnist(images[500:900], labels[500:900].long(), images[:500], labels[:500].long())


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    """Return a network that has learned nothing, whose recipe does not mind."""
    torch.manual_seed(0)
    recipe = replace(find(NAME, "seed"), epochs=2, min_accuracy=0.0)
    return Checkpoint(NAME, recipe, 7, 2, (), build(NAME).state_dict(), {}, "cpu")


@pytest.fixture(scope="module")
def published(checkpoint: Checkpoint, data: Mnist, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository of one version, made under the strictest umask."""
    models = tmp_path_factory.mktemp("published") / "models"
    before = os.umask(0o077)
    try:
        publish(checkpoint, data, models, lambda _: None)
    finally:
        os.umask(before)
    return models


@pytest.fixture
def models(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the repository; what is exported is the file that is published there."""
    content, layers = ((published / NAME / "1" / name).read_bytes() for name in (MODEL_FILE_NAME, LAYERS_FILE_NAME))
    monkeypatch.setattr(publish_module, "export", lambda _, path, __: path.write_bytes(content))
    monkeypatch.setattr(publish_module, "export_layers", lambda _, path: path.write_bytes(layers))
    return Path(shutil.copytree(published, tmp_path / "models"))


def everything(folder: Path) -> dict[str, bytes]:
    files = {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}
    return {str(path.relative_to(folder)): content for path, content in files.items()}


def disk_is_full(*_: object) -> Path:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def stop(*_: object) -> Path:
    raise KeyboardInterrupt


def break_the_last_rename(monkeypatch: pytest.MonkeyPatch, instead: object) -> None:
    """Let the list not be renamed into place; every other rename works."""
    move = Path.replace
    monkeypatch.setattr(
        Path, "replace", lambda path, target: instead() if Path(target).name == FILE_NAME else move(path, target)
    )


def test_a_model_repository_that_is_made_is_for_everyone_to_read(published: Path):
    assert stat.S_IMODE(published.stat().st_mode) == 0o755


def test_a_model_repository_that_was_there_keeps_its_mode(
    checkpoint: Checkpoint, data: Mnist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(publish_module, "export", disk_is_full)
    tmp_path.chmod(0o700)
    with pytest.raises(OSError, match="No space left"):
        publish(checkpoint, data, tmp_path, lambda _: None)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_without_room_for_the_list_nothing_is_published(
    checkpoint: Checkpoint, data: Mnist, models: Path, monkeypatch: pytest.MonkeyPatch
):
    before = everything(models)
    monkeypatch.setattr(publish_module, "draft_checksums", disk_is_full)
    with pytest.raises(OSError, match="No space left"):
        publish(checkpoint, data, models, lambda _: None)
    assert everything(models) == before


@pytest.mark.parametrize("first", [True, False])
def test_a_list_that_cannot_be_renamed_takes_the_version_back(
    checkpoint: Checkpoint, data: Mnist, models: Path, monkeypatch: pytest.MonkeyPatch, first: bool
):
    if first:
        shutil.rmtree(models / NAME)
    else:
        (models / NAME / "config.pbtxt").write_text("an older one", encoding="utf-8")
    before = everything(models)
    break_the_last_rename(monkeypatch, disk_is_full)
    with pytest.raises(OSError, match="No space left"):
        publish(checkpoint, data, models, lambda _: None)
    assert everything(models) == before


def test_a_publisher_that_dies_before_its_last_rename_is_made_up_for_by_the_next(
    checkpoint: Checkpoint, data: Mnist, models: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as dying:
        break_the_last_rename(dying, stop)
        with pytest.raises(KeyboardInterrupt):
            publish(checkpoint, data, models, lambda _: None)
    assert (models / NAME / "2" / MODEL_FILE_NAME).is_file()
    assert f"{NAME}/2/" not in (models / FILE_NAME).read_text(encoding="utf-8")
    assert publish(checkpoint, data, models, lambda _: None).name == "3"
    assert (models / FILE_NAME).read_text(encoding="utf-8") == checksums(models)
    assert f"{NAME}/2/{MODEL_FILE_NAME}\n" in checksums(models)
    assert not list(models.rglob(".*"))


def test_a_configuration_exchanged_before_the_death_is_listed_as_it_is_now(
    checkpoint: Checkpoint, data: Mnist, models: Path, monkeypatch: pytest.MonkeyPatch
):
    config = models / NAME / "config.pbtxt"
    config.write_text("of an older release", encoding="utf-8")
    (models / FILE_NAME).write_text(checksums(models), encoding="utf-8")
    with monkeypatch.context() as dying:
        break_the_last_rename(dying, stop)
        with pytest.raises(KeyboardInterrupt):
            publish(checkpoint, data, models, lambda _: None)
    assert find_published(checkpoint, models, 1.0) == models / NAME / "2"
    assert (models / FILE_NAME).read_text(encoding="utf-8") == checksums(models)


def test_a_run_that_has_epochs_before_it_is_refused(checkpoint: Checkpoint, data: Mnist, tmp_path: Path):
    unfinished = replace(checkpoint, epoch=1)
    with pytest.raises(CheckpointRejected, match=r"1 of 2 epochs behind it: the same `train` command with --resume"):
        publish(unfinished, data, tmp_path, lambda _: None)
    assert everything(tmp_path) == {}


def test_the_version_of_the_same_weights_is_found(checkpoint: Checkpoint, models: Path, tmp_path: Path):
    assert find_published(checkpoint, tmp_path / "none", 1.0) is None
    assert find_published(checkpoint, models, 1.0) == models / NAME / "1"
    shutil.copytree(models / NAME / "1", models / NAME / "2")
    (models / NAME / "3").mkdir()
    assert find_published(checkpoint, models, 1.0) == models / NAME / "2"
    for version in ("1", "2"):
        (models / NAME / version / MODEL_FILE_NAME).write_bytes(b"other weights")
    assert find_published(checkpoint, models, 1.0) is None


def test_a_version_that_is_found_is_listed_and_a_whole_list_is_left_alone(checkpoint: Checkpoint, models: Path):
    (models / FILE_NAME).unlink()
    find_published(checkpoint, models, 1.0)
    listed = (models / FILE_NAME).read_text(encoding="utf-8")
    assert listed == checksums(models)
    (models / NAME / "1" / "report.html").write_text("damaged", encoding="utf-8")
    find_published(checkpoint, models, 1.0)
    assert (models / FILE_NAME).read_text(encoding="utf-8") == listed
    shutil.copytree(models / NAME / "1", models / NAME / "2")
    find_published(checkpoint, models, 1.0)
    assert_only_the_damaged_report_differs(models)


def test_a_publication_does_not_vouch_for_what_was_damaged_before_it(checkpoint: Checkpoint, data: Mnist, models: Path):
    (models / NAME / "1" / "report.html").write_text("damaged", encoding="utf-8")
    (models / NAME / "config.pbtxt").write_text("replaced by the publication", encoding="utf-8")
    assert publish(checkpoint, data, models, lambda _: None).name == "2"
    assert_only_the_damaged_report_differs(models)


def assert_only_the_damaged_report_differs(models: Path) -> None:
    """Hold the list against the files, those of versions 1 and 2."""
    listed, now = (models / FILE_NAME).read_text(encoding="utf-8").splitlines(), checksums(models).splitlines()
    assert [path for _, _, path in (line.partition("  ") for line in listed)] == [line[66:] for line in now]
    assert [line[66:] for line in now if line not in listed] == [f"{NAME}/1/report.html"]


def test_two_at_once_publish_equal_weights_once_where_that_is_asked_for(
    checkpoint: Checkpoint, data: Mnist, models: Path
):
    shutil.rmtree(models / NAME)
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(publish, checkpoint, data, models, lambda _: None, once=True) for _ in range(2)]
        assert [job.result() for job in jobs] == [models / NAME / "1"] * 2
    assert sorted(path.name for path in (models / NAME).iterdir()) == ["1", "config.pbtxt"]


def test_equal_weights_are_published_once_where_that_is_asked_for(
    checkpoint: Checkpoint,
    data: Mnist,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(mnist, "load", lambda _: data)
    save(checkpoint, tmp_path / "checkpoint.pt")
    command = ["publish", str(tmp_path / "checkpoint.pt"), "--models", str(models)]
    assert main([*command, "--once"]) == 0
    assert capsys.readouterr().out == f"published already: {models / NAME / '1'}\n"
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"published: {models / NAME / '2'}"
    shutil.rmtree(models)
    assert main([*command, "--once"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"published: {models / NAME / '1'}"
