import pytest
import torch
from torch import nn

from serving.errors import InvalidInput
from training.architectures import C3_CONNECTIONS, NAMES, Normalize, PartialConv2d, ScaledTanh, Subsampling, build


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch", [0, 1, 7])
def test_every_network_turns_raw_pixels_into_ten_logits(name: str, batch: int):
    logits = build(name).eval()(torch.zeros(batch, 28, 28, dtype=torch.uint8))
    assert logits.shape == (batch, 10)
    assert logits.dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_normalisation_is_the_first_layer_of_every_network(name: str):
    assert isinstance(next(build(name).children()), Normalize)


def test_normalisation_is_that_of_torchvision():
    from torchvision import transforms  # takes seconds, which every process would spend

    image = torch.arange(256, dtype=torch.uint8).repeat(4)[: 28 * 28].reshape(28, 28)
    usual = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    torch.testing.assert_close(Normalize()(image[None])[0], usual(image.numpy()), atol=1e-6, rtol=0)


def test_an_unknown_network_is_refused_with_the_known_ones():
    with pytest.raises(InvalidInput, match="no architecture 'mnist-vgg'; there are: mnist-mlp, mnist-cnn"):
        build("mnist-vgg")


def test_the_perceptron_has_the_widths_of_the_tutorial():
    widths = [module.weight.shape for module in build("mnist-mlp").modules() if isinstance(module, nn.Linear)]
    assert widths == [(512, 784), (256, 512), (128, 256), (64, 128), (10, 64)]


def test_logits_are_unactivated():
    assert all(isinstance(list(build(name).modules())[-1], nn.Linear) for name in ("mnist-mlp", "mnist-cnn"))


def test_lenet5_has_the_weights_of_the_paper():
    model = build("mnist-lenet5")
    counts = {name: sum(weight.numel() for weight in layer.parameters()) for name, layer in model.named_children()}
    # LeCun et al. 1998, section II-B, layer by layer.
    assert [counts[name] for name in ("c1", "s2", "c3", "s4", "c5", "f6")] == [156, 12, 1516, 32, 48120, 10164]


def test_lenet5_pads_with_paper():
    model = build("mnist-lenet5")
    padded = model.pad(model.normalize(torch.zeros(1, 28, 28, dtype=torch.uint8)))
    assert padded.shape == (1, 1, 32, 32)
    torch.testing.assert_close(padded, padded[0, 0, 16, 16].expand_as(padded), atol=1e-7, rtol=0)


def test_connections_of_c3_are_those_of_table_1():
    assert [len(sources) for sources in C3_CONNECTIONS] == [3] * 6 + [4] * 9 + [6]
    assert C3_CONNECTIONS[5] == (5, 0, 1)
    assert C3_CONNECTIONS[11] == (5, 0, 1, 2)
    assert [set(sources) for sources in C3_CONNECTIONS[12:15]] == [{0, 1, 3, 4}, {1, 2, 4, 5}, {0, 2, 3, 5}]
    assert [sum(source in sources for sources in C3_CONNECTIONS) for source in range(6)] == [10] * 6


def test_a_partial_convolution_is_one_whose_other_kernels_are_zero():
    torch.manual_seed(0)
    partial = PartialConv2d(3, ((0, 2), (1,)), kernel_size=3)
    whole = nn.Conv2d(3, 2, 3)
    with torch.no_grad():
        whole.weight.zero_()
        whole.weight[0, 0], whole.weight[0, 2], whole.weight[1, 1] = partial.weight
        whole.bias.copy_(partial.bias)
    maps = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(partial(maps), whole(maps))


def test_a_map_that_is_not_connected_changes_nothing():
    partial = PartialConv2d(3, ((0, 2), (1,)), kernel_size=3)
    maps = torch.randn(1, 3, 8, 8)
    other = maps.clone()
    other[:, 1] += 1
    assert torch.equal(partial(maps)[:, 0], partial(other)[:, 0])
    assert not torch.equal(partial(maps)[:, 1], partial(other)[:, 1])


def test_subsampling_sums_four_pixels_and_scales_by_map():
    layer = Subsampling(2)
    with torch.no_grad():
        layer.coefficient.copy_(torch.tensor([1.0, 10.0]).reshape(2, 1, 1))
        layer.bias.fill_(3.0)
    maps = torch.arange(32, dtype=torch.float32).reshape(1, 2, 4, 4)
    assert layer(maps)[0, :, 0, 0].tolist() == [0 + 1 + 4 + 5 + 3, 10 * (16 + 17 + 20 + 21) + 3]


def test_scaled_tanh_maps_one_to_one():
    # The constants are chosen so that f(1) = 1 and f(-1) = -1: LeCun et al. 1998, appendix A.
    torch.testing.assert_close(ScaledTanh()(torch.tensor([1.0, -1.0])), torch.tensor([1.0, -1.0]), atol=1e-4, rtol=0)
