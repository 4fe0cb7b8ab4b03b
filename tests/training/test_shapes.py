import pytest
import torch
from torch import nn

from training.architectures import NAMES, build
from training.errors import ImpossibleLayer
from training.shapes import describe, explain, multiply_adds, parameters, trace


@pytest.mark.parametrize("name", NAMES)
def test_the_table_is_what_a_real_pass_makes(name: str):
    model = build(name)
    calls = trace(model)
    assert [row.output for row in explain(model)] == [tuple(output.shape[1:]) for *_, output in calls]


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_in_the_table_are_those_of_the_modules(name: str):
    model = build(name)
    for row in explain(model):
        weights = list(model.get_submodule(row.name).parameters())
        assert sorted(row.weights) == sorted(tuple(weight.shape) for weight in weights), row.name


@pytest.mark.parametrize("name", NAMES)
def test_parameters_add_up(name: str):
    model = build(name)
    assert sum(row.parameters for row in explain(model)) == parameters(model)


def test_320_comes_about():
    rows = {row.name: row for row in explain(build("mnist-cnn"))}
    assert rows["pool2"].output == (20, 4, 4)
    assert rows["flatten"].arithmetic == "20*4*4 = 320"


def test_the_costs_are_those_counted_by_hand():
    # 24*24*10*25 + 8*8*20*250 + 3200; 784*512 + 512*256 + 256*128 + 128*64 + 64*10
    assert multiply_adds(build("mnist-cnn")) == 144_000 + 320_000 + 3_200
    assert multiply_adds(build("mnist-mlp")) == 574_080
    # LeCun et al. 1998: 122,304 and 151,600 connections of C1 and C3, of which one per output is the bias.
    costs = {row.name: row.multiply_adds for row in explain(build("mnist-lenet5"))}
    assert costs["c1"] == 122_304 - 6 * 28 * 28
    assert costs["c3"] == 151_600 - 16 * 10 * 10


def test_explaining_leaves_the_network_as_it_was():
    model = build("mnist-cnn").train()
    explain(model)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_a_network_that_fails_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(5, 5)).train()
    with pytest.raises(RuntimeError):
        trace(model)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_layers_are_found_where_they_are_called_and_not_where_they_are_listed():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.second, self.first = nn.Conv2d(4, 8, 3), nn.Conv2d(1, 4, 3, padding=1)

        def forward(self, images):
            return self.second(self.first(images.unsqueeze(1).float()))

    assert [(row.name, row.output) for row in explain(Backwards())] == [("first", (4, 28, 28)), ("second", (8, 26, 26))]


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv2d(4, 8, (3, 5), stride=(2, 1), padding=(1, 0), dilation=2, groups=2, bias=False), (4, 15, 15)),
        (nn.MaxPool2d(3, stride=2, padding=1), (4, 15, 15)),
        (nn.AvgPool2d(2), (4, 15, 15)),
        (nn.AdaptiveAvgPool2d(1), (4, 15, 15)),
        (nn.BatchNorm2d(4), (4, 15, 15)),
        (nn.BatchNorm2d(4, affine=False), (4, 15, 15)),
        (nn.ConstantPad2d((1, 2, 3, 4), 0.0), (4, 15, 15)),
        (nn.Linear(7, 3, bias=False), (7,)),
        (nn.GELU(), (7,)),
    ],
)
def test_a_described_module_is_the_real_one(module: nn.Module, shape: tuple[int, ...]):
    row = describe("layer", module).row("layer", shape)
    assert row.output == tuple(module.eval()(torch.zeros(1, *shape)).shape[1:])
    assert row.parameters == parameters(module)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.LSTM(3, 4), "x: no arithmetic is known for LSTM"),
        (nn.Conv2d(1, 1, 3, padding="same"), "x: padding 'same' has no number"),
        (nn.MaxPool2d(2, ceil_mode=True), "x: ceil_mode is not covered"),
        (nn.AdaptiveAvgPool2d(7), "x: only an adaptive pool to 1x1 is covered, got 7"),
    ],
)
def test_what_is_not_covered_is_refused_and_not_guessed(module: nn.Module, message: str):
    with pytest.raises(ImpossibleLayer, match=message):
        describe("x", module)
