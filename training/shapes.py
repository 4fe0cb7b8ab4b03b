"""What each layer of a network does to the shape of a digit, and what it costs.

Must not know: how the network was trained. The input of each layer is taken from a real pass; what comes out of it, and
what it costs, is computed by `training.layers`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from training.architectures import Normalize, PartialConv2d, ScaledTanh, Subsampling
from training.errors import ImpossibleLayer
from training.layers import (
    Convolution,
    Dense,
    Elementwise,
    Flattening,
    GlobalPooling,
    Layer,
    Normalization,
    Padding,
    Pair,
    Pooling,
    Row,
    Window,
)


def explain(model: nn.Module) -> list[Row]:
    """Return one row per layer, in the order in which the layers run.

    Args:
        model: a network that takes images uint8 (N, 28, 28).

    Raises:
        ImpossibleLayer: a layer of a kind that this arithmetic does not cover.
    """
    return [describe(name, module).row(name, tuple(before.shape[1:])) for name, module, before, _ in trace(model)]


def parameters(model: nn.Module) -> int:
    """Return how many numbers of the network training may change."""
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_adds(model: nn.Module) -> int:
    """Return how many products a network adds up to read one digit, in its convolutions and linear layers."""
    return sum(row.multiply_adds for row in explain(model))


def trace(model: nn.Module, image: Tensor | None = None) -> list[tuple[str, nn.Module, Tensor, Tensor]]:
    """Run one image and return name, module, input and output of every layer, in the order of their running.

    Args:
        model: a network that takes images uint8 (N, 28, 28); it runs in evaluation mode and keeps its own.
        image: uint8 (28, 28); paper if None.
    """
    calls: list[tuple[str, nn.Module, Tensor, Tensor]] = []
    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        return lambda module, inputs, output: calls.append((name, module, inputs[0], output))

    hooks = [module.register_forward_hook(watch(name)) for name, module in leaves]
    device = next(model.parameters()).device
    was_training = model.training
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(1, 28, 28, dtype=torch.uint8, device=device) if image is None else image[None])
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return calls


def describe(name: str, module: nn.Module) -> Layer:
    """Return the description of a module.

    Raises:
        ImpossibleLayer: a kind, or an option, that this arithmetic does not cover.
    """
    for kind, described in _KINDS.items():
        if isinstance(module, kind):
            return described(name, module)
    if isinstance(module, _ELEMENTWISE):
        return Elementwise(type(module).__name__)
    raise ImpossibleLayer(f"{name}: no arithmetic is known for {type(module).__name__}")


def _pair(value: int | Pair) -> Pair:
    return (value, value) if isinstance(value, int) else value


def _window(name: str, module: Any) -> Window:
    if isinstance(module.padding, str):
        raise ImpossibleLayer(f"{name}: padding {module.padding!r} has no number; give it in pixels")
    if getattr(module, "ceil_mode", False):
        raise ImpossibleLayer(f"{name}: ceil_mode is not covered; only whole windows are counted")
    dilation = _pair(getattr(module, "dilation", 1))
    return Window(_pair(module.kernel_size), _pair(module.stride), _pair(module.padding), dilation)


def _convolution(name: str, module: Any) -> Layer:
    channels = (module.out_channels, _window(name, module), module.in_channels)
    return Convolution(*channels, groups=module.groups, bias=module.bias is not None)


def _partial(name: str, module: Any) -> Layer:
    window = _window(name, module)
    return Convolution(module.out_channels, window, module.in_channels, connections=module.connections)


def _global_pool(name: str, module: Any) -> Layer:
    if module.output_size not in {1, (1, 1)}:
        raise ImpossibleLayer(f"{name}: only an adaptive pool to 1x1 is covered, got {module.output_size}")
    return GlobalPooling()


_KINDS: dict[type[nn.Module], Callable[[str, Any], Layer]] = {
    Normalize: lambda *_: Normalization(),
    PartialConv2d: _partial,
    Subsampling: lambda name, module: Pooling("subsampling", _window(name, module), trainable=True),
    nn.Conv2d: _convolution,
    nn.MaxPool2d: lambda name, module: Pooling("max-pool", _window(name, module)),
    nn.AvgPool2d: lambda name, module: Pooling("avg-pool", _window(name, module)),
    nn.AdaptiveAvgPool2d: _global_pool,
    nn.ConstantPad2d: lambda _, module: Padding(module.padding),
    nn.BatchNorm2d: lambda _, module: Elementwise("BatchNorm2d", per_channel=2 if module.affine else 0),
    nn.Flatten: lambda *_: Flattening(),
    nn.Linear: lambda _, module: Dense(module.out_features, module.in_features, module.bias is not None),
}
_ELEMENTWISE = (nn.ReLU, nn.SiLU, nn.GELU, nn.Tanh, ScaledTanh, nn.Dropout, nn.Dropout2d, nn.Identity)
