"""What is chosen after training, and which networks nothing can be chosen for."""

from dataclasses import replace
from pathlib import Path

import pytest

from training.__main__ import main
from training.architectures import build
from training.checkpoint import Checkpoint, save
from training.recipe import find


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_network_whose_logits_are_no_numbers_is_refused_in_one_line(tmp_path: Path, capsys, value: str):
    weights = build("mnist-cnn").state_dict()
    weights["linear.bias"][3] = float(value)
    recipe = replace(find("mnist-cnn", "best"), epochs=1, validation_size=50)
    save(Checkpoint("mnist-cnn", recipe, 1, 1, (), weights, {}, "cpu"), tmp_path / "checkpoint.pt")
    assert main(["publish", str(tmp_path / "checkpoint.pt"), "--models", str(tmp_path / "models")]) == 1
    said = capsys.readouterr().err
    assert said == "error: 50 of 50 validation images have logits that are not finite numbers\n"
    assert not (tmp_path / "models").exists()
