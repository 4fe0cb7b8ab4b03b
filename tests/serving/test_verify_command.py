import errno
import os
from pathlib import Path

import pytest

from serving.__main__ import main
from serving.manifest import MODEL_FILE_NAME
from tests.serving.tiny_model import write_tiny_model


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for name, version in (("first", 1), ("first", 2), ("second", 1)):
        write_tiny_model(tmp_path, name, version)
    return tmp_path


def verify(models: Path, *chosen: str) -> int:
    return main(["verify", *chosen, "--models", str(models), "--device", "cpu"])


def spoil(folder: Path) -> None:
    with (folder / MODEL_FILE_NAME).open("ab") as file:
        file.write(b"\0")


def test_every_version_gets_a_line(models: Path, capsys: pytest.CaptureFixture[str]):
    assert verify(models) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["MODEL", "VERSION", "RESULT", "DETAIL"]
    assert [line.split()[:3] for line in lines[2:]] == [
        ["first", "1", "passed"],
        ["first", "2", "passed"],
        ["second", "1", "passed"],
    ]
    assert "20 golden digits on CPUExecutionProvider, accuracy 10.00 % on the test set".replace(" %", "%") in lines[2]


def test_the_services_models_are_checked_by_default(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MNIST_MODELS", str(models))
    assert main(["verify", "second"]) == 0
    assert capsys.readouterr().out.splitlines()[2].split()[:3] == ["second", "1", "passed"]


def test_one_failure_fails_the_command_and_the_others_are_still_checked(
    models: Path, capsys: pytest.CaptureFixture[str]
):
    spoil(models / "first" / "2")
    assert verify(models) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines[2:]] == ["passed", "FAILED", "passed"]
    assert "size: found" in lines[3]


def test_a_file_that_cannot_be_read_keeps_no_other_from_its_line(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    unreadable, read = models / "first" / "1" / MODEL_FILE_NAME, Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path == unreadable:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert verify(models) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines[2:]] == ["FAILED", "passed", "passed"]
    assert f"Permission denied: '{unreadable}'" in lines[2]


@pytest.mark.parametrize(
    ("chosen", "checked"),
    [(["second"], [["second", "1"]]), (["first"], [["first", "1"], ["first", "2"]]), (["first/2"], [["first", "2"]])],
)
def test_a_model_or_a_version_can_be_chosen(
    models: Path, capsys: pytest.CaptureFixture[str], chosen: list[str], checked: list[list[str]]
):
    assert verify(models, *chosen) == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[2:]] == checked


def test_a_bad_version_that_was_not_chosen_does_not_matter(models: Path):
    spoil(models / "first" / "2")
    assert verify(models, "second", "first/1") == 0


@pytest.mark.parametrize(
    ("chosen", "complaint"),
    [
        ("third", "no model 'third'; there are: first, second"),
        ("first/3", "no version 3 of first; there are: 1, 2"),
        ("first/latest", "no version 'latest' of first: a version is a whole number"),
    ],
)
def test_an_unknown_model_is_one_line(models: Path, capsys: pytest.CaptureFixture[str], chosen: str, complaint: str):
    assert verify(models, chosen) == 1
    assert capsys.readouterr().err == f"error: {complaint}\n"


def test_an_empty_repository_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert verify(tmp_path) == 1
    assert capsys.readouterr().err == f"error: no models in {tmp_path}\n"
