"""The command that explains a network or layers of one's own, through the real entry point."""

from pathlib import Path

import pytest
import torch

from training.__main__ import main
from training.architectures import build


def test_a_network_is_explained(capsys):
    assert main(["shapes", "mnist-cnn"]) == 0
    assert "20 maps of 4x4: 20*4*4 = 320." in capsys.readouterr().out


def test_a_layer_of_ones_own_is_explained(capsys):
    assert main(["shapes", "--input", "3x60x60", "--layers", "conv(10,k3,s2,p1)", "--batch", "7"]) == 0
    out = capsys.readouterr().out
    assert "[7,3,60,60] -> [7,10,30,30]" in out
    assert "[10,3,3,3]" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "expected an architecture, or both --input and --layers"),
        (["--input", "3x60x60"], "expected an architecture, or both --input and --layers"),
        (["mnist-cnn", "--input", "3x6x6", "--layers", "relu"], "expected an architecture, or both"),
        (["mnist-vgg"], "no architecture 'mnist-vgg'"),
        (["mnist-cnn", "--batch", "-1"], "--batch -1: expected 0 or more"),
        (["--input", f"3x{'9' * 5000}x6", "--layers", "relu"], "expected CHANNELSxHEIGHTxWIDTH"),
        (["--input", "3x6x6", "--layers", f"linear({'9' * 5000})"], "linear(999"),
        (["--input", "3x6x6", "--layers", f"conv(3,k{'9' * 5000})"], "conv(3,k999"),
        (["mnist-cnn", "--digit", "99999"], "--digit and --data choose what --plot draws"),
        (["mnist-cnn", "--data", "elsewhere"], "--digit and --data choose what --plot draws"),
        (["--input", "3x60x60", "--layers", "relu", "--plot"], "--plot and --checkpoint need an architecture"),
        (["--input", "3x2x2", "--layers", "conv(10,k3)"], "conv1: a kernel that reaches over 3 does not fit into 2"),
    ],
)
def test_what_cannot_be_explained_is_one_line(options: list[str], message: str, capsys):
    assert main(["shapes", *options]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("small_data")
def test_pictures_are_drawn(tmp_path: Path, capsys):
    assert main(["shapes", "mnist-cnn", "--plot", str(tmp_path / "untrained")]) == 0
    assert "11 pictures in" in capsys.readouterr().out
    torch.save(build("mnist-cnn").state_dict(), tmp_path / "weights.pt")
    options = ["--plot", str(tmp_path / "trained"), "--checkpoint", str(tmp_path / "weights.pt"), "--digit", "3"]
    assert main(["shapes", "mnist-cnn", *options]) == 0
    assert f"weights of {tmp_path / 'weights.pt'}" in capsys.readouterr().out
    assert len(list((tmp_path / "trained").iterdir())) == 11


@pytest.mark.usefixtures("small_data")
def test_a_digit_that_is_not_there_is_refused(tmp_path: Path, capsys):
    assert main(["shapes", "mnist-cnn", "--plot", str(tmp_path), "--digit", "100"]) == 1
    assert "--digit 100: expected 0 to 99" in capsys.readouterr().err
