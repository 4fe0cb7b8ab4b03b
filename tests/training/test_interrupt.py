"""What `train` says of its checkpoint when it is interrupted."""

from pathlib import Path

import pytest

from training.__main__ import main
from training.console import Console
from training.learner import Learner

RUN = "mnist-cnn-seed-seed1"

pytestmark = pytest.mark.usefixtures("small_data")


def interrupt(monkeypatch, epoch: int) -> None:
    """Have Ctrl-C pressed in this epoch from now on; 0 is before there is anything to save."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    if epoch == 0:
        monkeypatch.setattr(Learner, "begin", stop)
    else:
        monkeypatch.setattr(Console, "on_batch", lambda _, now, *__: stop() if now == epoch else None)


@pytest.mark.parametrize(
    ("epoch", "option", "said"),
    [
        (0, "--restart", "interrupted before the first checkpoint"),
        (0, "--resume", "interrupted; {path} holds the last whole epoch: the same command with --resume goes on"),
        (
            1,
            "--restart",
            "interrupted before the first whole epoch; {path} holds the untrained network:"
            " the same command with --resume instead of --restart goes on",
        ),
        (
            2,
            "--restart",
            "interrupted; {path} holds the last whole epoch:"
            " the same command with --resume instead of --restart goes on",
        ),
        (2, "--resume", "interrupted; {path} holds the last whole epoch: the same command with --resume goes on"),
    ],
)
def test_an_interrupted_run_claims_no_checkpoint_of_another(
    tmp_path: Path, monkeypatch, capsys, epoch: int, option: str, said: str
):
    command = ["train", "mnist-cnn", "--output", str(tmp_path)]
    assert main([*command, "--epochs", "1"]) == 0
    capsys.readouterr()
    interrupt(monkeypatch, epoch)
    assert main([*command, "--epochs", "2", option]) == 130
    assert capsys.readouterr().err == said.format(path=tmp_path / RUN / "checkpoint.pt") + "\n"


def test_an_interrupt_before_there_is_anything_to_save_says_so(tmp_path: Path, monkeypatch, capsys):
    interrupt(monkeypatch, 0)
    assert main(["train", "mnist-cnn", "--output", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "interrupted before the first checkpoint\n"
    assert list(tmp_path.iterdir()) == []
