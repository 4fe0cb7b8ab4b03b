"""The arithmetic of layers: what shape comes out, how many parameters, how many multiply-adds.

Must not know: torch. Shapes are those of one example, without the batch: (channels, height, width) or (features,).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from training.errors import ImpossibleLayer

Shape = tuple[int, ...]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Row:
    """What one layer does to one shape."""

    name: str
    kind: str
    geometry: str
    """Kernel, stride and padding, where there are any."""
    arithmetic: str
    """The formula of the output's shape with its numbers."""
    input: Shape
    output: Shape
    weights: tuple[Shape, ...]
    multiply_adds: int
    """Products that are added up, for one example; convolutions and linear layers have them."""

    @property
    def parameters(self) -> int:
        """Return how many numbers training may change."""
        return sum(map(math.prod, self.weights))


class Layer(Protocol):
    """The description of a layer."""

    def row(self, name: str, shape: Shape) -> Row:
        """Say what the layer makes of an input of that shape.

        Raises:
            ImpossibleLayer: it cannot take that shape.
        """


def chain(layers: Sequence[tuple[str, Layer]], shape: Shape) -> list[Row]:
    """Return the row of each named layer, every one fed with what the one before makes.

    Raises:
        ImpossibleLayer: a layer cannot take what it is given; the text names the layer and the numbers.
    """
    rows: list[Row] = []
    for name, layer in layers:
        rows.append(layer.row(name, rows[-1].output if rows else shape))
    return rows


def text(shape: Shape) -> str:
    """Return a shape as people write it: [10,3,3,3]."""
    return f"[{','.join(map(str, shape))}]"


@dataclass(frozen=True)
class Window:
    """A kernel that moves over the image: sizes in pixels, (height, width) each.

    Source: Dumoulin and Visin 2016, "A guide to convolution arithmetic for deep learning", relationships 6 and 15.
    """

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    @property
    def geometry(self) -> str:
        """Return the sizes, each once where height and width agree."""
        dilation = "" if self.dilation == (1, 1) else f" d{_size(self.dilation)}"
        return f"k{_size(self.kernel)} s{_size(self.stride)} p{_size(self.padding)}{dilation}"

    def slide(self, name: str, shape: Shape) -> tuple[Pair, str]:
        """Return the output's height and width, and how they come about."""
        if len(shape) != 3:
            raise ImpossibleLayer(f"{name}: expected channels x height x width, got {text(shape)}")
        if min(self.kernel + self.stride + self.dilation) < 1 or min(self.padding) < 0:
            raise ImpossibleLayer(f"{name}: kernel and stride must be at least 1, padding 0, got {self.geometry}")
        axes = list(zip(shape[1:], self.kernel, self.stride, self.padding, self.dilation, strict=True))
        for side, kernel, _, padding, dilation in axes:
            reach = dilation * (kernel - 1) + 1
            if side + 2 * padding < reach:
                raise ImpossibleLayer(
                    f"{name}: a kernel that reaches over {reach} does not fit into {side} + 2*{padding} ="
                    f" {side + 2 * padding} pixels (input {text(shape)}, {self.geometry})"
                )
        height, width = (_slid(*axis) for axis in axes)
        written = list(dict.fromkeys(_written(*axis) for axis in axes))
        return (height, width), ", ".join(written)


@dataclass(frozen=True)
class Convolution:
    """A convolution; `connections` counts the pairs of maps where not every output map sees every input map."""

    out_channels: int
    window: Window
    in_channels: int | None = None
    groups: int = 1
    bias: bool = True
    connections: int | None = None

    def row(self, name: str, shape: Shape) -> Row:
        """See Layer."""
        (height, width), arithmetic = self.window.slide(name, shape)
        channels = _expect(name, "channels", self.in_channels, shape[0])
        _at_least_one(name, "output channels", self.out_channels)
        if channels % self.groups or self.out_channels % self.groups:
            raise ImpossibleLayer(
                f"{name}: {self.groups} groups must divide both {channels} and {self.out_channels} channels"
            )
        kernels: Shape = (self.out_channels, channels // self.groups, *self.window.kernel)
        if self.connections is not None:
            kernels = (self.connections, *self.window.kernel)
        return Row(
            name,
            "convolution",
            self.window.geometry,
            arithmetic,
            shape,
            (self.out_channels, height, width),
            (kernels, (self.out_channels,)) if self.bias else (kernels,),
            math.prod(kernels) * height * width,
        )


@dataclass(frozen=True)
class Pooling:
    """A pool; `trainable` ones have a coefficient and a bias per map."""

    kind: str
    window: Window
    trainable: bool = False

    def row(self, name: str, shape: Shape) -> Row:
        """See Layer."""
        (height, width), arithmetic = self.window.slide(name, shape)
        for kernel, padding in zip(self.window.kernel, self.window.padding, strict=True):
            if 2 * padding > kernel:
                raise ImpossibleLayer(f"{name}: padding {padding} is more than half of kernel {kernel}")
        weights: tuple[Shape, ...] = ((shape[0], 1, 1), (shape[0], 1, 1)) if self.trainable else ()
        output = (shape[0], height, width)
        return Row(name, self.kind, self.window.geometry, arithmetic, shape, output, weights, 0)


@dataclass(frozen=True)
class GlobalPooling:
    """The mean of each map."""

    def row(self, name: str, shape: Shape) -> Row:
        """See Layer."""
        if len(shape) != 3:
            raise ImpossibleLayer(f"{name}: expected channels x height x width, got {text(shape)}")
        arithmetic = f"mean of {shape[1]}*{shape[2]} = {shape[1] * shape[2]}"
        return Row(name, "global avg-pool", "", arithmetic, shape, (shape[0], 1, 1), (), 0)


@dataclass(frozen=True)
class Padding:
    """Pixels added at (left, right, top, bottom)."""

    sides: tuple[int, int, int, int]

    def row(self, name: str, shape: Shape) -> Row:
        """See Layer."""
        if len(shape) != 3:
            raise ImpossibleLayer(f"{name}: expected channels x height x width, got {text(shape)}")
        left, right, top, bottom = self.sides
        channels, height, width = shape
        output = (channels, height + top + bottom, width + left + right)
        written = (f"{height} + {top} + {bottom} = {output[1]}", f"{width} + {left} + {right} = {output[2]}")
        return Row(name, "padding", "", ", ".join(dict.fromkeys(written)), shape, output, (), 0)


@dataclass(frozen=True)
class Flattening:
    """All numbers of an example in one row."""

    def row(self, name: str, shape: Shape) -> Row:
        """See Layer."""
        features = math.prod(shape)
        arithmetic = f"{'*'.join(map(str, shape))} = {features}"
        return Row(name, "flatten", "", arithmetic, shape, (features,), (), 0)


@dataclass(frozen=True)
class Dense:
    """A linear layer."""

    out_features: int
    in_features: int | None = None
    bias: bool = True

    def row(self, name: str, shape: Shape) -> Row:
        """See Layer."""
        if len(shape) != 1:
            raise ImpossibleLayer(f"{name}: expected one row of features, got {text(shape)}; flatten it first")
        features = _expect(name, "features", self.in_features, shape[0])
        _at_least_one(name, "output features", self.out_features)
        weights: tuple[Shape, ...] = ((self.out_features, features),)
        if self.bias:
            weights = (*weights, (self.out_features,))
        arithmetic = f"{features} -> {self.out_features}"
        return Row(name, "linear", "", arithmetic, shape, (self.out_features,), weights, math.prod(weights[0]))


@dataclass(frozen=True)
class Elementwise:
    """Anything that leaves the shape as it is; `per_channel` counts its weights for each channel."""

    kind: str
    per_channel: int = 0

    def row(self, name: str, shape: Shape) -> Row:
        """See Layer."""
        return Row(name, self.kind, "", "same shape", shape, shape, ((shape[0],),) * self.per_channel, 0)


@dataclass(frozen=True)
class Normalization:
    """Raw pixels (height, width) to one channel, mean 0 and deviation 1."""

    def row(self, name: str, shape: Shape) -> Row:
        """See Layer."""
        if len(shape) != 2:
            raise ImpossibleLayer(f"{name}: expected height x width, got {text(shape)}")
        return Row(name, "normalize", "", "one channel", shape, (1, *shape), (), 0)


def _slid(side: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _written(side: int, kernel: int, stride: int, padding: int, dilation: int) -> str:
    reach = f"{kernel}" if dilation == 1 else f"({dilation}*({kernel} - 1) + 1)"
    return f"({side} + 2*{padding} - {reach})//{stride} + 1 = {_slid(side, kernel, stride, padding, dilation)}"


def _size(pair: Pair) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}x{pair[1]}"


def _expect(name: str, what: str, expected: int | None, found: int) -> int:
    if expected is not None and expected != found:
        raise ImpossibleLayer(f"{name}: takes {expected} {what}, got {found}")
    return found


def _at_least_one(name: str, what: str, count: int) -> None:
    if count < 1:
        raise ImpossibleLayer(f"{name}: {what} must be at least 1, got {count}")
