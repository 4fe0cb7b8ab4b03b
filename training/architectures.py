"""The networks: from raw pixels to ten logits.

Must not know: data sets, training, export.
"""

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serving.errors import InvalidInput
from training.residual import residual

# Mean and standard deviation of MNIST's 60,000 training images with pixels in [0, 1].
MEAN, STD = 0.1307, 0.3081
PAPER = (0.0 - MEAN) / STD


class Normalize(nn.Module):
    """Turn raw pixels into what the first layer wants, so that no caller can forget to."""

    def forward(self, images: Tensor) -> Tensor:
        """Normalise: uint8 (N, 28, 28), 0 = paper, 255 = ink, to float32 (N, 1, 28, 28), mean 0, deviation 1."""
        intensities = images.unsqueeze(1).to(torch.float32) / 255.0
        return (intensities - MEAN) / STD


class ScaledTanh(nn.Module):
    """LeNet-5's squashing function, 1.7159 tanh(2/3 a). Source: LeCun et al. 1998, appendix A."""

    def forward(self, activations: Tensor) -> Tensor:
        """Squash: float32, any shape, to the same shape in (-1.7159, 1.7159)."""
        return 1.7159 * torch.tanh(activations * (2.0 / 3.0))


class Subsampling(nn.Module):
    """LeNet-5's S layers: 2x2 sums, times one trainable coefficient per map, plus one trainable bias.

    Source: LeCun et al. 1998, section II-B.
    """

    kernel_size = 2
    stride = 2
    padding = 0

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        # A quarter turns the sum into the mean: activations keep their scale from layer to layer.
        self.coefficient = nn.Parameter(torch.full((channels, 1, 1), 0.25))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, maps: Tensor) -> Tensor:
        """Subsample: float32 (N, C, H, W) to (N, C, H // 2, W // 2)."""
        sums: Tensor = F.avg_pool2d(maps, self.kernel_size) * float(self.kernel_size**2)
        return sums * self.coefficient + self.bias


# Which of S2's six maps each of C3's sixteen maps sees. Source: LeCun et al. 1998, table I.
C3_CONNECTIONS = (
    *((first, (first + 1) % 6, (first + 2) % 6) for first in range(6)),
    *((first, (first + 1) % 6, (first + 2) % 6, (first + 3) % 6) for first in range(6)),
    *((first, (first + 1) % 6, (first + 3) % 6, (first + 4) % 6) for first in range(3)),
    tuple(range(6)),
)


class PartialConv2d(nn.Module):
    """A convolution whose output maps each see only some input maps; it holds no weight for the others.

    Args:
        in_channels: how many maps come in.
        connections: for each output map, the input maps it sees.
        kernel_size: side of the square kernel, in pixels.
    """

    weight_index: Tensor
    stride = 1
    padding = 0

    def __init__(self, in_channels: int, connections: tuple[tuple[int, ...], ...], kernel_size: int):
        super().__init__()
        self.in_channels, self.out_channels, self.kernel_size = in_channels, len(connections), kernel_size
        self.connections = sum(map(len, connections))
        index = torch.full((self.out_channels, in_channels), self.connections)
        pairs = [(output, source) for output, sources in enumerate(connections) for source in sources]
        for position, (output, source) in enumerate(pairs):
            index[output, source] = position
        self.register_buffer("weight_index", index, persistent=False)
        # Conv2d's own default: uniform within one over the root of the fan-in, here each output map's own.
        bounds = torch.tensor([(len(sources) * kernel_size**2) ** -0.5 for sources in connections])
        by_kernel = bounds[[output for output, _ in pairs]].reshape(-1, 1, 1)
        self.weight = nn.Parameter((torch.rand(self.connections, kernel_size, kernel_size) * 2 - 1) * by_kernel)
        self.bias = nn.Parameter((torch.rand(self.out_channels) * 2 - 1) * bounds)

    def forward(self, maps: Tensor) -> Tensor:
        """Convolve: float32 (N, in_channels, H, W) to (N, out_channels, H - kernel_size + 1, W - kernel_size + 1)."""
        absent = self.weight.new_zeros(1, self.kernel_size, self.kernel_size)
        dense = torch.cat([self.weight, absent])[self.weight_index]  # (out_channels, in_channels, kernel, kernel)
        return F.conv2d(maps, dense, self.bias)


def _mlp() -> nn.Module:
    """Return the multilayer perceptron 784-512-256-128-64-10 with ReLU."""
    widths = (784, 512, 256, 128, 64, 10)
    layers: OrderedDict[str, nn.Module] = OrderedDict(normalize=Normalize(), flatten=nn.Flatten())
    for number, (wide, narrow) in enumerate(pairwise(widths), start=1):
        layers[f"linear{number}"] = nn.Linear(wide, narrow)
        if narrow != widths[-1]:
            layers[f"relu{number}"] = nn.ReLU()
    return nn.Sequential(layers)


def _cnn() -> nn.Module:
    """Return the tutorial's convolutional network: two convolutions, each pooled, and one linear layer."""
    return nn.Sequential(
        OrderedDict(
            normalize=Normalize(),
            conv1=nn.Conv2d(1, 10, kernel_size=5),
            pool1=nn.MaxPool2d(2),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(10, 20, kernel_size=5),
            pool2=nn.MaxPool2d(2),
            relu2=nn.ReLU(),
            flatten=nn.Flatten(),
            linear=nn.Linear(320, 10),
        )
    )


def _lenet5() -> nn.Module:
    """Return LeNet-5 as in LeCun et al. 1998, figure 2: 60,000 trainable weights up to F6, as there.

    As there: the 32x32 field, C1, the trainable S2 and S4, C3's partial connections (table I), C5, F6, scaled tanh.
    Changed: the 28x28 picture is padded with paper to 32x32; pixels are normalised to mean 0 and deviation 1 (there:
    paper -0.1, ink 1.175, which is nearly the same); ten linear logits under cross-entropy replace the radial basis
    functions on drawn digits and their mean squared error; weights start uniform within one over the root of the
    fan-in (there: 2.4 over the fan-in).
    """
    return nn.Sequential(
        OrderedDict(
            normalize=Normalize(),
            pad=nn.ConstantPad2d(2, PAPER),
            c1=nn.Conv2d(1, 6, kernel_size=5),
            c1_tanh=ScaledTanh(),
            s2=Subsampling(6),
            s2_tanh=ScaledTanh(),
            c3=PartialConv2d(6, C3_CONNECTIONS, kernel_size=5),
            c3_tanh=ScaledTanh(),
            s4=Subsampling(16),
            s4_tanh=ScaledTanh(),
            c5=nn.Conv2d(16, 120, kernel_size=5),
            c5_tanh=ScaledTanh(),
            flatten=nn.Flatten(),
            f6=nn.Linear(120, 84),
            f6_tanh=ScaledTanh(),
            output=nn.Linear(84, 10),
        )
    )


_BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "mnist-mlp": _mlp,
    "mnist-cnn": _cnn,
    "mnist-lenet5": _lenet5,
    "mnist-resnet": lambda: residual(Normalize()),
}
NAMES = tuple(_BUILDERS)


def build(name: str) -> nn.Module:
    """Return a new network, its weights drawn from torch's global generator.

    Args:
        name: one of NAMES.

    Returns:
        A module whose `forward` takes images uint8 (N, 28, 28), 0 = paper, 255 = ink, and gives logits float32
        (N, 10), column k for digit k; its layers can be reached by name. It is in training mode.

    Raises:
        InvalidInput: no such network.
    """
    if name not in _BUILDERS:
        raise InvalidInput(f"no architecture {name!r}; there are: {', '.join(NAMES)}")
    return _BUILDERS[name]()
