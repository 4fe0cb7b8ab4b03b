import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from training.errors import ImpossibleLayer
from training.layers import (
    Convolution,
    Dense,
    Elementwise,
    Flattening,
    GlobalPooling,
    Normalization,
    Padding,
    Pooling,
    Window,
    chain,
    text,
)

pairs = st.tuples(st.integers(1, 5), st.integers(1, 5))
paddings = st.tuples(st.integers(0, 3), st.integers(0, 3))
images = st.tuples(st.integers(1, 4), st.integers(1, 24), st.integers(1, 24))


def made(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return what shape torch makes of one example, or None if it refuses."""
    try:
        return tuple(module(torch.zeros(1, *shape)).shape[1:])
    except RuntimeError:
        return None


def said(layer, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    try:
        return layer.row("layer", shape).output
    except ImpossibleLayer:
        return None


@settings(max_examples=150)
@given(images, st.integers(1, 6), pairs, pairs, paddings, pairs)
def test_a_convolution_is_torchs(shape, out_channels, kernel, stride, padding, dilation):
    module = nn.Conv2d(shape[0], out_channels, kernel, stride, padding, dilation)
    layer = Convolution(out_channels, Window(kernel, stride, padding, dilation))
    assert said(layer, shape) == made(module, shape)
    if said(layer, shape):
        assert layer.row("conv", shape).weights == (tuple(module.weight.shape), tuple(module.bias.shape))


@settings(max_examples=150)
@given(images, pairs, pairs, paddings, st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]))
def test_a_pool_is_torchs(shape, kernel, stride, padding, kind):
    assert said(Pooling("pool", Window(kernel, stride, padding)), shape) == made(kind(kernel, stride, padding), shape)


@settings(max_examples=50)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_grouped_convolutions_have_torchs_weights(groups, into, out, bias):
    module = nn.Conv2d(groups * into, groups * out, 3, groups=groups, bias=bias)
    layer = Convolution(groups * out, Window((3, 3), (1, 1)), groups=groups, bias=bias)
    row = layer.row("conv", (groups * into, 5, 5))
    assert row.parameters == sum(weight.numel() for weight in module.parameters())


@settings(max_examples=50)
@given(images, st.integers(1, 5), st.integers(1, 4))
def test_multiply_adds_are_those_of_counting_each_product(shape, out_channels, kernel):
    assume(min(shape[1:]) >= kernel)
    # With ones everywhere and no bias each output is the number of products it adds up.
    weight = torch.ones(out_channels, shape[0], kernel, kernel)
    products = int(nn.functional.conv2d(torch.ones(1, *shape), weight).sum())
    row = Convolution(out_channels, Window((kernel, kernel), (1, 1)), bias=False).row("conv", shape)
    assert row.multiply_adds == products


def test_the_tutorials_example_comes_out():
    row = Convolution(10, Window((3, 3), (2, 2), (1, 1))).row("conv1", (3, 60, 60))
    assert row.output == (10, 30, 30)
    assert row.weights == ((10, 3, 3, 3), (10,))
    assert row.arithmetic == "(60 + 2*1 - 3)//2 + 1 = 30"
    assert row.geometry == "k3 s2 p1"


def test_axes_that_differ_are_both_written():
    row = Convolution(1, Window((3, 5), (1, 1), (0, 0), (2, 1))).row("conv1", (1, 9, 9))
    assert row.arithmetic == "(9 + 2*0 - (2*(3 - 1) + 1))//1 + 1 = 5, (9 + 2*0 - 5)//1 + 1 = 5"
    assert row.geometry == "k3x5 s1 p0 d2x1"


def test_each_layer_is_fed_with_what_the_one_before_makes():
    rows = chain(
        [
            ("lift", Normalization()),
            ("pad", Padding((2, 2, 2, 2))),
            ("conv", Convolution(6, Window((5, 5), (1, 1)))),
            ("relu", Elementwise("relu")),
            ("mean", GlobalPooling()),
            ("flat", Flattening()),
            ("out", Dense(10)),
        ],
        (28, 28),
    )
    outputs = [(1, 28, 28), (1, 32, 32), (6, 28, 28), (6, 28, 28), (6, 1, 1), (6,), (10,)]
    assert [row.output for row in rows] == outputs
    assert [row.input for row in rows[1:]] == outputs[:-1]
    assert rows[-1].parameters == 70


def test_nothing_in_a_row_makes_nothing():
    assert chain([], (1, 2, 3)) == []


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (
            Convolution(10, Window((5, 5), (1, 1))),
            (3, 4, 4),
            r"x: a kernel that reaches over 5 .* 4 \+ 2\*0 = 4 pixels",
        ),
        (Convolution(10, Window((5, 5), (0, 0))), (3, 9, 9), "x: kernel and stride must be at least 1.*s0"),
        (Convolution(10, Window((0, 0), (1, 1))), (3, 9, 9), "x: kernel and stride must be at least 1.*k0"),
        (Convolution(0, Window((3, 3), (1, 1))), (3, 9, 9), "x: output channels must be at least 1, got 0"),
        (Convolution(10, Window((3, 3), (1, 1)), 4), (3, 9, 9), "x: takes 4 channels, got 3"),
        (Convolution(9, Window((3, 3), (1, 1)), groups=2), (4, 9, 9), "x: 2 groups must divide both 4 and 9"),
        (Convolution(9, Window((3, 3), (1, 1))), (320,), r"x: expected channels x height x width, got \[320\]"),
        (Pooling("max-pool", Window((2, 2), (2, 2), (2, 2))), (3, 9, 9), "x: padding 2 is more than half of kernel 2"),
        (GlobalPooling(), (320,), r"x: expected channels x height x width, got \[320\]"),
        (Padding((1, 1, 1, 1)), (320,), r"x: expected channels x height x width, got \[320\]"),
        (Dense(10), (20, 4, 4), r"x: expected one row of features, got \[20,4,4\]; flatten it first"),
        (Dense(10, 320), (500,), "x: takes 320 features, got 500"),
        (Dense(0), (500,), "x: output features must be at least 1, got 0"),
        (Normalization(), (1, 28, 28), r"x: expected height x width, got \[1,28,28\]"),
    ],
)
def test_an_impossible_layer_is_named_with_its_numbers(layer, shape, message: str):
    with pytest.raises(ImpossibleLayer, match=message):
        layer.row("x", shape)


def test_shapes_are_written_as_people_write_them():
    assert text((10, 3, 3, 3)) == "[10,3,3,3]"
