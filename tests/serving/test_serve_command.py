import argparse
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.__main__ import main
from serving.commands import serve
from serving.ending import let_signals_in


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch, free_port: int) -> Iterator[list[list[str]]]:
    """Return the command lines that this process would have become."""
    commands: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, command: commands.append(command))
    monkeypatch.setattr(os, "environ", {"PORT": str(free_port), "MNIST_HOST": "127.0.0.1"})
    yield commands
    let_signals_in()


def test_it_becomes_bentoml_serve_without_telemetry(executed: list[list[str]], monkeypatch: pytest.MonkeyPatch):
    os.environ["BENTOML_CONTAINERIZED"] = "1"
    serve.run(argparse.Namespace())
    (command,) = executed
    assert command[:5] == [sys.executable, "-m", "bentoml", "serve", "serving.service:MnistReader"]
    assert os.environ["BENTOML_DO_NOT_TRACK"] == "True"
    assert "BENTOML_CONTAINERIZED" not in os.environ


@pytest.mark.parametrize("terminal", [True, False])
def test_on_a_terminal_nobody_waits_for_the_drain(
    executed: list[list[str]], monkeypatch: pytest.MonkeyPatch, terminal: bool
):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: terminal, raising=False)
    serve.run(argparse.Namespace())
    assert os.environ.get("MNIST_DRAIN_S") == ("0" if terminal else None)


def test_the_first_process_of_a_container_drains_also_with_a_terminal(
    executed: list[list[str]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    serve.run(argparse.Namespace())
    assert "MNIST_DRAIN_S" not in os.environ


def test_without_standard_input_nobody_is_there_who_could_press_a_key(
    executed: list[list[str]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "stdin", None)
    serve.run(argparse.Namespace())
    assert "MNIST_DRAIN_S" not in os.environ


def test_relative_paths_mean_the_folder_of_the_caller(
    executed: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    given = {"MNIST_MODELS": "mine", "MNIST_TOKEN_FILE": "../t", "MNIST_TLS_CERT": "c.pem", "MNIST_TLS_KEY": "/k.pem"}
    os.environ.update(given, MNIST_ADMIN_TOKEN_FILE="", MNIST_DEFAULT_MODEL="tiny")
    serve.run(argparse.Namespace())
    assert {name: os.environ[name] for name in given} == {
        "MNIST_MODELS": str(tmp_path / "mine"),
        "MNIST_TOKEN_FILE": str(tmp_path / "../t"),
        "MNIST_TLS_CERT": str(tmp_path / "c.pem"),
        "MNIST_TLS_KEY": "/k.pem",
    }
    assert (os.environ["MNIST_ADMIN_TOKEN_FILE"], os.environ["MNIST_DEFAULT_MODEL"]) == ("", "tiny")


def test_a_wrong_setting_is_one_line_and_no_start(executed: list[list[str]], capsys: pytest.CaptureFixture[str]):
    os.environ["MNIST_WORKERS"] = "none"
    assert main(["serve"]) == 1
    assert capsys.readouterr().err.startswith("error: MNIST_WORKERS='none': ")
    assert executed == []


@pytest.mark.parametrize(("kind", "found"), [("file", "this is none"), ("nothing", "there is nothing")])
def test_a_place_without_models_is_one_line_and_no_start(
    executed: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, found: str
):
    place = tmp_path / "place"
    if kind == "file":
        place.write_text("")
    os.environ["MNIST_MODELS"] = str(place)
    assert main(["serve"]) == 1
    assert capsys.readouterr().err == f"error: MNIST_MODELS={place}: expected a folder of models; {found}\n"
    assert executed == []


def test_from_another_folder_the_models_beside_the_service_are_the_default(
    executed: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    serve.run(argparse.Namespace())
    assert len(executed) == 1


def test_a_taken_port_is_one_line_and_no_start(executed: list[list[str]], capsys: pytest.CaptureFixture[str]):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        os.environ["PORT"] = str(taken.getsockname()[1])
        assert main(["serve"]) == 1
    assert "cannot listen on 127.0.0.1" in capsys.readouterr().err
    assert executed == []


def test_without_a_place_for_temporary_files_it_is_one_line_and_no_start(
    executed: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/absent"])
    assert main(["serve"]) == 1
    assert capsys.readouterr().err.startswith("error: TMPDIR: expected a folder that can be written to: ")
    assert executed == []
