"""Pictures of a network at work: its kernels, and what each layer makes of one digit.

Must not know: the command line.
"""

import math
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor, nn

from training.shapes import trace

Floats = npt.NDArray[np.float32]

# More panels than this are too small to see anything in.
MAX_PANELS = 256
_PANEL_INCHES = 0.8
_DOTS_PER_INCH = 100


def draw(model: nn.Module, image: Tensor, folder: Path) -> list[Path]:
    """Write PNG files into `folder`: kernels-LAYER.png for each convolution, NN-LAYER.png for what each layer makes.

    Args:
        model: a network that takes images uint8 (N, 28, 28).
        image: uint8 (28, 28), 0 = paper, 255 = ink.
        folder: made if it is not there.

    Returns:
        The files, in the order of the layers, kernels first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    calls = trace(model, image)
    paths = []
    for name, module, _, _ in calls:
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim >= 3:
            path = folder / f"kernels-{_file_name(name)}.png"
            kernels = weight.detach().float().cpu().numpy()
            # One row per output map where that fits on a page.
            columns = kernels.shape[1] if kernels.ndim == 4 and 1 < kernels.shape[1] <= 16 else None
            _panels(kernels.reshape(-1, *kernels.shape[-2:]), f"{name}: kernels {list(kernels.shape)}", path, columns)
            paths.append(path)
    for number, (name, module, before, after) in enumerate(calls):
        path = folder / f"{number:02}-{_file_name(name)}.png"
        title = f"{name} ({type(module).__name__}): {list(before.shape[1:])} -> {list(after.shape[1:])}"
        values = after[0].float().cpu().numpy()
        _columns(values, title, path) if values.ndim == 1 else _panels(values, title, path)
        paths.append(path)
    return paths


def _panels(maps: Floats, title: str, path: Path, columns: int | None = None) -> None:
    """Draw maps (N, H, W) in rows, `columns` in each, on one grey scale, whose middle grey is 0."""
    shown = maps[:MAX_PANELS]
    columns = columns or max(8, math.ceil(math.sqrt(len(shown))))
    sheet = _sheet(shown, columns)
    size = (columns * _PANEL_INCHES, columns * _PANEL_INCHES * sheet.shape[0] / sheet.shape[1] + 0.5)
    figure = Figure(figsize=size, dpi=_DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0 - 0.5 / size[1]))
    axes.set_axis_off()
    reach = float(np.abs(maps).max()) or 1.0
    axes.imshow(sheet, cmap="gray", vmin=-reach, vmax=reach, interpolation="nearest", aspect="auto")
    axes.set_title(f"{title}, {len(shown)} shown" if len(shown) < len(maps) else title, fontsize=9)
    figure.savefig(path)


def _sheet(maps: Floats, columns: int) -> Floats:
    """Return maps (N, H, W) side by side in one array, one pixel that is no number between them."""
    count, height, width = maps.shape
    rows = math.ceil(count / columns)
    tiles = np.full((rows * columns, height + 1, width + 1), np.nan, np.float32)
    tiles[:count, :height, :width] = maps
    tiles = tiles.reshape(rows, columns, height + 1, width + 1)
    return tiles.swapaxes(1, 2).reshape(rows * (height + 1), columns * (width + 1))


def _columns(values: Floats, title: str, path: Path) -> None:
    """Draw values (N,) as columns."""
    figure = Figure(figsize=(8, 3), dpi=_DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.stairs(values, np.arange(len(values) + 1) - 0.5, fill=True, color="black")
    if len(values) == 10:
        axes.set_xticks(range(10))
    axes.set_title(title, fontsize=9)
    figure.savefig(path)


def _file_name(layer: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "-", layer)
