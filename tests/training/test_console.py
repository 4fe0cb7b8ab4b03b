import os
import subprocess
import sys
from pathlib import Path

import pytest

from training.checkpoint import EpochRecord
from training.console import Console

ROOT = Path(__file__).parent.parent.parent
LINES = [
    "[1, 300] loss: 0.689",
    "[1, 600] loss: 0.200",
    "accuracy on test set after epoch 1: 96.52 % (4.7 s)",
    "[2, 300] loss: 0.100",
]
# A run of two epochs, as the training loop would report it.
RUN = """
from training.checkpoint import EpochRecord
from training.console import Console

with Console() as console:
    for epoch, losses in ((1, {300: 0.6894, 600: 0.2}), (2, {300: 0.1})):
        for batch in range(1, 701):
            console.on_batch(epoch, batch, 938)
            if batch in losses:
                console.on_loss(epoch, batch, losses[batch])
        if epoch == 1:
            console.on_epoch(EpochRecord(1, 0.4, 0.9652, "test", 4.712))
"""


def test_the_lines_are_the_tutorials(capsys):
    with Console() as console:
        console.on_batch(1, 300, 938)
        console.on_loss(1, 300, 0.6894)
        console.on_epoch(EpochRecord(1, 0.4, 0.9652, "test", 4.712))
    assert capsys.readouterr().out.splitlines() == [LINES[0], LINES[2]]


def test_in_a_pipe_there_are_the_lines_and_nothing_else():
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines() == LINES
    assert done.stderr == ""


def test_under_a_bar_on_a_terminal_the_lines_stay_whole_in_a_pipe():
    pty = pytest.importorskip("pty")
    termios = pytest.importorskip("termios")
    control, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    os.set_blocking(control, False)
    try:
        done = subprocess.run(
            [sys.executable, "-c", RUN],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=terminal,
            text=True,
            check=True,
            timeout=120,
        )
        shown = os.read(control, 1 << 20).decode()
    finally:
        os.close(terminal)
        os.close(control)
    assert done.stdout.splitlines() == LINES
    assert "epoch 1:" in shown
    assert "/938" in shown


def test_a_run_that_breaks_off_closes_its_bar():
    def broken_off() -> None:
        with console:
            console.on_batch(1, 1, 938)
            raise KeyboardInterrupt

    console = Console()
    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert console._bar is None
