import pytest

from training.architectures import build
from training.errors import ImpossibleLayer
from training.layer_text import parse_layers, parse_shape, table
from training.layers import Convolution, Dense, Elementwise, Flattening, Pooling, Row, Window, chain
from training.shapes import explain


@pytest.mark.parametrize(("written", "shape"), [("3x60x60", (3, 60, 60)), ("320", (320,)), ("28x28", (28, 28))])
def test_shapes_are_read(written: str, shape: tuple[int, ...]):
    assert parse_shape(written) == shape


@pytest.mark.parametrize("written", ["", "x", "3x", "0x60x60", "3x-1x2", "3x60x60x60", "three", "3 x 60 x 60", "3*60"])
def test_what_is_no_shape_is_refused(written: str):
    with pytest.raises(ImpossibleLayer, match="expected CHANNELSxHEIGHTxWIDTH"):
        parse_shape(written)


@pytest.mark.parametrize(
    ("written", "layer"),
    [
        ("conv(10,k3,s2,p1)", Convolution(10, Window((3, 3), (2, 2), (1, 1)))),
        ("conv(10, k3)", Convolution(10, Window((3, 3), (1, 1)))),
        ("conv(3,10,k3x5,s1x2,p0x2,d2)", Convolution(10, Window((3, 5), (1, 2), (0, 2), (2, 2)), 3)),
        ("pool(2)", Pooling("max-pool", Window((2, 2), (2, 2)))),
        ("max-pool(k3,s2,p1)", Pooling("max-pool", Window((3, 3), (2, 2), (1, 1)))),
        ("avg-pool(3,s1)", Pooling("avg-pool", Window((3, 3), (1, 1)))),
        ("relu", Elementwise("relu")),
        ("tanh()", Elementwise("tanh")),
        ("flatten", Flattening()),
        ("linear(10)", Dense(10)),
        ("linear(320,10)", Dense(10, 320)),
    ],
)
def test_a_layer_is_read(written: str, layer):
    assert [read for _, read in parse_layers(written)] == [layer]


@pytest.mark.parametrize("separator", [" ", ",", ", ", "; ", "\n"])
def test_layers_in_a_row_are_numbered_by_kind(separator: str):
    written = separator.join(["conv(10,k5)", "pool(2)", "relu", "conv(20,k5)", "pool(2)", "flatten", "linear(10)"])
    layers = parse_layers(written)
    assert [name for name, _ in layers] == ["conv1", "pool1", "relu1", "conv2", "pool2", "flatten1", "linear1"]
    assert [row.output for row in chain(layers, (1, 28, 28))][-2:] == [(320,), (10,)]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("", "layers ''"),
        ("conv(10,k3", r"cannot read 'conv\(10,k3'"),
        ("conv(10)", r"conv\(10\): no layer of this form"),
        ("conv(1,2,3,k3)", "no layer of this form"),
        ("conv(k3,10)", r"conv\(k3,10\): cannot read '10'"),
        ("conv(10,k3,k5)", "cannot read 'k5'"),
        ("conv(10,kx)", "cannot read 'kx'"),
        ("conv(10,k-3)", "cannot read 'k-3'"),
        ("conv(10,,k3)", "cannot read ''"),
        ("conv(\u0661,k3)", "cannot read '\u0661'"),
        ("pool(2,k2)", "no layer of this form"),
        ("pool(2,d2)", "no layer of this form"),
        ("pool", "pool: no layer of this form"),
        ("relu(3)", "no layer of this form"),
        ("linear(10,k3)", "no layer of this form"),
        ("dense(10)", r"dense\(10\): no layer of this form"),
        ("relu !", "cannot read ' !'"),
    ],
)
def test_what_is_no_layer_is_refused_with_an_example(written: str, message: str):
    with pytest.raises(ImpossibleLayer, match=message) as caught:
        parse_layers(written)
    assert 'for example "conv(10,k3,s2,p1)' in str(caught.value)


def test_the_table_of_one_layer_answers_for_its_batch():
    written = table(chain(parse_layers("conv(10,k3,s2,p1)"), (3, 60, 60)), batch=7)
    assert "[7,3,60,60] -> [7,10,30,30]" in written
    assert "[10,3,3,3]" in written
    assert "(60 + 2*1 - 3)//2 + 1 = 30" in written


def test_the_formula_below_the_table_is_the_one_that_its_layers_follow():
    written = table(chain(parse_layers("conv(4,k3,d2) conv(4,k3)"), (1, 28, 28)))
    assert "k, s, p, d: kernel, stride, padding, dilation" in written
    assert "A side becomes (side + 2*p - (d*(k - 1) + 1))//s + 1." in written
    assert "A side becomes (side + 2*p - k)//s + 1." not in written
    plain = table(chain(parse_layers("conv(4,k3)"), (1, 28, 28)))
    assert "k, s, p: kernel, stride, padding in pixels. A side becomes (side + 2*p - k)//s + 1." in plain


def test_the_table_of_a_network_says_how_320_comes_about_and_what_all_costs():
    lines = table(explain(build("mnist-cnn"))).splitlines()
    assert lines[0].split()[:3] == ["layer", "kind", "geometry"]
    assert [line.split()[-2:] for line in lines if line.startswith("total")] == [["8,490", "467,200"]]
    assert lines[-1] == (
        "320 into flatten: width 28, conv1 -> 24, pool1 -> 12, conv2 -> 8, pool2 -> 4; 20 maps of 4x4: 20*4*4 = 320."
    )
    assert "[N,320] -> [N,10]" in "\n".join(lines)


def test_the_way_to_a_flat_size_leaves_out_the_shortcut_beside_it():
    assert table(explain(build("mnist-resnet"))).splitlines()[-1] == (
        "1728 into flatten: width 28, stem.conv -> 14, block3.conv1.conv -> 7, shrink1.conv -> 5, shrink2.conv -> 3;"
        " 192 maps of 3x3: 192*3*3 = 1728."
    )


def test_a_shape_that_no_layer_made_is_no_shortcut():
    def row(name: str, before: tuple[int, ...], after: tuple[int, ...]) -> Row:
        return Row(name, "flatten" if len(after) == 1 else "max-pool", "", "", before, after, (), 0)

    # Between them is something that is no layer, such as a call of max_pool2d.
    rows = [row("one", (1, 28, 28), (1, 24, 24)), row("two", (1, 12, 12), (1, 6, 6)), row("flat", (1, 6, 6), (36,))]
    assert "width 28, one -> 24, two -> 6; " in table(rows)


def test_columns_are_aligned():
    rows = table(explain(build("mnist-lenet5"))).splitlines()[2:18]
    assert len({row.index("[N") for row in rows}) == 1
