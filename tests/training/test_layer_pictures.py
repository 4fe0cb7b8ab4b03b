from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from training import layer_pictures
from training.architectures import build
from training.layer_pictures import draw


def grey(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"))


def test_every_layer_and_every_convolution_gets_a_picture(tmp_path: Path):
    image = torch.zeros(28, 28, dtype=torch.uint8)
    image[4:24, 13:16] = 255
    paths = draw(build("mnist-cnn"), image, tmp_path / "pictures")
    assert [path.name for path in paths] == [
        "kernels-conv1.png",
        "kernels-conv2.png",
        *("00-normalize.png", "01-conv1.png", "02-pool1.png", "03-relu1.png", "04-conv2.png", "05-pool2.png"),
        *("06-relu2.png", "07-flatten.png", "08-linear.png"),
    ]
    assert sorted(paths) == sorted((tmp_path / "pictures").iterdir())
    assert all(np.ptp(grey(path)) > 200 for path in paths)


def test_ink_is_light_in_the_picture_of_the_input(tmp_path: Path):
    image = torch.zeros(28, 28, dtype=torch.uint8)
    blank = draw(build("mnist-mlp"), image, tmp_path / "blank")
    image[4:24, 4:24] = 255
    inked = draw(build("mnist-mlp"), image, tmp_path / "inked")
    # Below the title; the one map of the input is at the left.
    middle = (slice(70, 100), slice(25, 55))
    assert grey(inked[0])[middle].min() > grey(blank[0])[middle].max()


def test_partial_convolutions_are_drawn(tmp_path: Path):
    names = {path.name for path in draw(build("mnist-lenet5"), torch.zeros(28, 28, dtype=torch.uint8), tmp_path)}
    assert {"kernels-c1.png", "kernels-c3.png", "kernels-c5.png", "06-c3.png"} <= names


def test_nested_layers_get_plain_file_names(tmp_path: Path):
    model = nn.Sequential(nn.Sequential(build("mnist-mlp")))
    assert (tmp_path / "00-0-0-normalize.png") in draw(model, torch.zeros(28, 28, dtype=torch.uint8), tmp_path)


def test_maps_lie_side_by_side_row_by_row():
    maps = np.arange(3, dtype=np.float32).repeat(6).reshape(3, 2, 3)
    sheet = layer_pictures._sheet(maps, columns=2)
    assert sheet.shape == (6, 8)
    assert (sheet[:2, :3] == 0).all()
    assert (sheet[:2, 4:7] == 1).all()
    assert (sheet[3:5, :3] == 2).all()
    assert np.isnan(sheet).sum() == 48 - 18


def test_more_maps_than_a_page_holds_are_cut(tmp_path: Path, monkeypatch):
    seen = []
    sheet = layer_pictures._sheet
    monkeypatch.setattr(layer_pictures, "MAX_PANELS", 4)
    monkeypatch.setattr(layer_pictures, "_sheet", lambda maps, columns: seen.append(len(maps)) or sheet(maps, columns))
    draw(build("mnist-cnn"), torch.zeros(28, 28, dtype=torch.uint8), tmp_path)
    assert max(seen) == 4
