import argparse
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.cli import run
from serving.errors import NotReady

ROOT = Path(__file__).parent.parent.parent


def outcome(command: Callable[[], int]) -> int:
    """Return the exit code of a program whose only command is this."""
    parser = argparse.ArgumentParser()
    parser.set_defaults(run=lambda _: command())
    return run(parser, [])


def raising(error: BaseException, printed: str = "") -> Callable[[], int]:
    def command() -> int:
        sys.stdout.write(printed)
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", Path("a/b")), "a/b: No such file or directory"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "new", None, "old"), "new -> old: Is a directory"),
        (OSError("cannot be written"), "cannot be written"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_what_the_system_refuses_is_one_line(error: OSError, line: str, capsys: pytest.CaptureFixture[str]):
    assert outcome(raising(error, "printed before\n")) == 1
    assert capsys.readouterr() == ("printed before\n", f"error: {line}\n")


def test_a_command_keeps_its_own_code(capsys: pytest.CaptureFixture[str]):
    assert outcome(lambda: 3) == 3
    assert capsys.readouterr() == ("", "")


def test_an_interrupt_is_no_failure(capsys: pytest.CaptureFixture[str]):
    assert outcome(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_package_of_an_extra_that_is_not_installed_is_named_with_its_extra(capsys: pytest.CaptureFixture[str]):
    assert outcome(raising(ModuleNotFoundError("No module named 'torch'", name="torch"))) == 1
    assert capsys.readouterr().err == "error: torch is not installed: pip install 'mnist-reader[training]'\n"


def test_any_other_module_that_is_missing_keeps_its_traceback():
    with pytest.raises(ModuleNotFoundError):
        outcome(raising(ModuleNotFoundError("No module named 'numpi'", name="numpi")))


def test_an_error_that_is_no_refusal_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        outcome(raising(ZeroDivisionError()))


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (None, 1, "error: No space left on device\n"),
        (NotReady("not yet"), 1, "error: not yet\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_output_that_finds_no_room_is_an_error_once(
    error: BaseException | None,
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert outcome(raising(error, "much") if error else printing) == code
    assert capsys.readouterr().err == line


def printing() -> int:
    sys.stdout.write("much")
    return 0


@pytest.mark.parametrize("flush", [True, False])
def test_a_reader_that_has_read_enough_is_no_news(
    flush: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def command() -> int:
        sys.stdout.write("a line\n")
        if flush:
            sys.stdout.flush()
        return 0

    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert outcome(command) == 1
    assert capsys.readouterr().err == ""


def test_a_command_that_prints_nothing_needs_no_standard_output(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert outcome(lambda: 0) == 0


def test_the_program_ends_without_a_word_when_its_reader_has_gone():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "serving", "settings"]
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run(
            command, cwd=ROOT, stdout=closed, stderr=subprocess.PIPE, text=True, check=False, timeout=120
        )
    assert (done.returncode, done.stderr) == (1, "")
