"""Batched augmentation on tensors: the ways in which hands, pens and cameras differ from MNIST's.

Must not know: networks, losses or files.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

SIDE = 28
ELASTIC_NODES = 5


@dataclass(frozen=True)
class Strength:
    """How far augmentation may go; 0 everywhere leaves the pictures as they are."""

    rotation_deg: float = 0.0
    """Standard deviation of the rotation is half of this, its bound this, in degrees."""
    scale: float = 0.0
    """Each axis of the sampling grid is scaled by a factor in [1 - scale, 1 + scale], the picture by its inverse."""
    shear: float = 0.0
    """Slant: horizontal shift per unit of height, in [-shear, shear]."""
    shift_px: float = 0.0
    """Translation along each axis, in [-shift_px, shift_px] pixels."""
    elastic_px: float = 0.0
    """Standard deviation of the displacement at each of 5x5 nodes, in pixels."""
    pen: float = 0.0
    """Fraction of pictures whose stroke is made thinner or thicker by up to about one pixel."""
    contrast: float = 0.0
    """Fraction of pictures whose edges are hardened, as scans and paint programs make them, or paled."""
    habits: float = 0.0
    """Fraction of 1s given a long upstroke or a foot, of 4s closed at the top, of 7s given a bar."""


MILD = Strength(rotation_deg=10, scale=0.08, shear=0.10, shift_px=1.0, elastic_px=0.4)
STRONG = Strength(
    rotation_deg=15, scale=0.2, shear=0.25, shift_px=2.0, elastic_px=0.7, pen=0.5, contrast=0.35, habits=0.05
)
STRENGTHS = {"none": Strength(), "mild": MILD, "strong": STRONG}


def augment(images: Tensor, labels: Tensor, strength: Strength, generator: torch.Generator) -> Tensor:
    """Return a changed copy of a batch; every random number comes from `generator`.

    Args:
        images: uint8, shape (N, 28, 28), 0 = paper, 255 = ink.
        labels: int64, shape (N,), 0-9, or anything else for pictures that are no digit.
        strength: how far to go.
        generator: on the device of `images`.

    Returns:
        uint8, shape (N, 28, 28).
    """
    if strength == Strength() or not len(images):
        return images
    ink = images.float() / 255
    if strength.habits:
        ink = add_habits(ink, labels, strength.habits, generator)
    ink = warp(ink, strength, generator)
    if strength.pen:
        ink = change_pen(ink, strength.pen, generator)
    if strength.contrast:
        ink = change_contrast(ink, strength.contrast, generator)
    return (ink * 255).round().clamp(0, 255).byte()


def warp(ink: Tensor, strength: Strength, generator: torch.Generator) -> Tensor:
    """Turn, scale, slant, shift and bend each picture by its own amounts, in one bilinear resampling.

    Args:
        ink: float32, shape (N, 28, 28), 0-1.
        strength: the bounds.
        generator: on the device of `ink`.

    Returns:
        float32, shape (N, 28, 28), 0-1.

    Source: Simard, Steinkraus, Platt 2003, for elastic bending; here the displacement is drawn at 5x5 nodes and
    interpolated bicubically, which costs less than smoothing a field of all pixels.
    """
    count = len(ink)
    angle = _normal((count,), generator).clamp(-2, 2) * (strength.rotation_deg / 2) * (torch.pi / 180)
    scale = 1 + _uniform((count, 2), generator) * strength.scale
    shear = _uniform((count,), generator) * strength.shear
    shift = _uniform((count, 2), generator) * (strength.shift_px * 2 / SIDE)
    cos, sin = angle.cos(), angle.sin()
    first = torch.stack([cos * scale[:, 0], (shear * cos - sin) * scale[:, 1], shift[:, 0]], dim=1)
    second = torch.stack([sin * scale[:, 0], (shear * sin + cos) * scale[:, 1], shift[:, 1]], dim=1)
    matrices = torch.stack([first, second], dim=1)  # (N, 2, 3)
    grid = functional.affine_grid(matrices, [count, 1, SIDE, SIDE], align_corners=False)
    if strength.elastic_px:
        nodes = _normal((count, 2, ELASTIC_NODES, ELASTIC_NODES), generator) * (strength.elastic_px * 2 / SIDE)
        field = functional.interpolate(nodes, size=(SIDE, SIDE), mode="bicubic", align_corners=True)
        grid = grid + field.permute(0, 2, 3, 1)
    return functional.grid_sample(ink.unsqueeze(1), grid, align_corners=False).squeeze(1)


def change_pen(ink: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Thicken or thin the strokes of a fraction of the pictures, by up to half a pixel to each side.

    Args:
        ink: float32, shape (N, 28, 28), 0-1.
        fraction: of the pictures, in [0, 1].
        generator: on the device of `ink`.

    Returns:
        float32, shape (N, 28, 28), 0-1.
    """
    thick, thin = _neighbourhood_maximum(ink), -_neighbourhood_maximum(-ink)
    amount = _uniform((len(ink), 1, 1), generator) * _chosen(len(ink), fraction, generator)
    # A thinning of more than 0.6 makes MNIST's thinnest strokes disappear.
    return ink + amount.clamp(min=0) * (thick - ink) + (-amount).clamp(0, 0.6) * (thin - ink)


def _neighbourhood_maximum(values: Tensor) -> Tensor:
    """Return the maximum over 3x3 pixels: (N, 28, 28). By shifts, which took a fifth of max_pool2d's time on a CPU."""
    wide = functional.pad(values, (1, 1, 1, 1), value=-1.0)
    rows = torch.maximum(torch.maximum(wide[:, :, :-2], wide[:, :, 1:-1]), wide[:, :, 2:])
    return torch.maximum(torch.maximum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])


def change_contrast(ink: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Harden the edges of a fraction of the pictures, and pale the ink of some of them.

    Args:
        ink: float32, shape (N, 28, 28), 0-1.
        fraction: of the pictures, in [0, 1].
        generator: on the device of `ink`.

    Returns:
        float32, shape (N, 28, 28), 0-1.
    """
    chosen = _chosen(len(ink), fraction, generator)
    slope = 1 + 3 * _uniform((len(ink), 1, 1), generator).abs()
    middle = 0.45 + 0.15 * _uniform((len(ink), 1, 1), generator)
    ceiling = 1 - 0.35 * _uniform((len(ink), 1, 1), generator).clamp(min=0)
    hard = ((ink - middle) * slope + middle).clamp(0, 1) * ceiling
    return torch.lerp(ink, hard, chosen)


def add_habits(ink: Tensor, labels: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Write a fraction of the 1s, 4s and 7s as many hands do and few of MNIST's: upstroke, closed top, bar.

    Args:
        ink: float32, shape (N, 28, 28), 0-1.
        labels: int64, shape (N,).
        fraction: of the pictures of those digits, in [0, 1].
        generator: on the device of `ink`.

    Returns:
        float32, shape (N, 28, 28), 0-1; other pictures untouched. A 4 is drawn anew, for no stroke closes an open one.
    """
    result = ink.clone()
    chosen = _chosen(len(ink), fraction, generator).flatten() > 0
    for digit, strokes, keeps in ((1, _upstrokes, True), (4, _closed_fours, False), (7, _bars, True)):
        rows = (chosen & (labels == digit)).nonzero().flatten()
        if len(rows):
            drawn = _draw(strokes(ink[rows], generator), generator)
            result[rows] = torch.maximum(ink[rows], drawn) if keeps else drawn
    return result


def _upstrokes(ink: Tensor, generator: torch.Generator) -> Tensor:
    """Return segments (N, 1, 4) = x0, y0, x1, y1 in pixels: from the top of a 1 down to the left."""
    top, _ = _extent(ink)
    column = _column(ink, top)
    length = 6.5 + 3 * _uniform((len(ink),), generator)
    slope = (47 + 14 * _uniform((len(ink),), generator)) * (torch.pi / 180)
    ends = [column, top.float(), column - length * slope.cos(), top + length * slope.sin()]
    return torch.stack(ends, dim=1).unsqueeze(1)


def _bars(ink: Tensor, generator: torch.Generator) -> Tensor:
    """Return segments (N, 1, 4): a bar across the stem of a 7, a little below the middle of its height."""
    top, bottom = _extent(ink)
    rows = (top + (bottom - top) * (0.56 + 0.06 * _uniform((len(ink),), generator))).long()
    centre = _column(ink, rows)
    half = 3.6 + 1.2 * _uniform((len(ink),), generator)
    tilt = 0.8 * _uniform((len(ink),), generator)
    return torch.stack([centre - half, rows + tilt, centre + half, rows - tilt], dim=1).unsqueeze(1)


def _closed_fours(ink: Tensor, generator: torch.Generator) -> Tensor:
    """Return segments (N, 3, 4): slope, bar and stem of a 4 whose top is closed, 18 to 20 pixels high."""
    noise = _uniform((7, len(ink)), generator)
    stem, left, right = 15.5 + noise[0], 7 + 1.5 * noise[1], 19.5 + 1.5 * noise[2]
    top, bar, foot = 4.5 + 0.5 * noise[3], 16.5 + 1.5 * noise[4], 23 + noise[5]
    apex = stem + 0.8 * noise[6]
    slope = torch.stack([apex, top, left, bar], dim=1)
    return torch.stack([slope, torch.stack([left, bar, right, bar], 1), torch.stack([apex, top, stem, foot], 1)], dim=1)


def _extent(ink: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and the last row with ink, in pixels: (N,), (N,), int64."""
    inked = (ink.amax(dim=2) > 0.4).float()
    return inked.argmax(dim=1), SIDE - 1 - inked.flip(1).argmax(dim=1)


def _column(ink: Tensor, rows: Tensor) -> Tensor:
    """Return the mean column of the ink in one row of each picture, in pixels: (N,)."""
    line = ink[torch.arange(len(ink), device=ink.device), rows] + 1e-6
    return (line * torch.arange(SIDE, device=ink.device)).sum(dim=1) / line.sum(dim=1)


def _draw(segments: Tensor, generator: torch.Generator) -> Tensor:
    """Return pictures (N, 28, 28), 0-1, of straight strokes, from segments (N, S, 4); pens of 1.6 to 3 pixels."""
    start, span = segments[..., None, None, :2], (segments[..., 2:] - segments[..., :2])[..., None, None, :]
    axis = torch.arange(SIDE, device=segments.device, dtype=torch.float32)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=2)  # (28, 28, 2) = x, y
    offset = points - start  # (N, S, 28, 28, 2)
    along = (offset * span).sum(-1) / span.square().sum(-1).clamp(min=1e-6)
    distance = torch.linalg.vector_norm(offset - along.clamp(0, 1).unsqueeze(-1) * span, dim=-1).amin(dim=1)
    half_width = 1.15 + 0.35 * _uniform((len(segments), 1, 1), generator)
    pictures: Tensor = (half_width + 0.5 - distance).clamp(0, 1)
    return pictures


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return numbers in [-1, 1)."""
    return torch.rand(shape, generator=generator, device=generator.device) * 2 - 1


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)


def _chosen(count: int, fraction: float, generator: torch.Generator) -> Tensor:
    """Return (N, 1, 1): 1.0 for a random fraction of the pictures, else 0.0."""
    return (torch.rand((count, 1, 1), generator=generator, device=generator.device) < fraction).float()
