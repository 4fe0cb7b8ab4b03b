"""Layers as text: read from a command line, and written as a table.

Must not know: torch.
"""

import re
from collections import Counter
from collections.abc import Sequence

from training.errors import ImpossibleLayer
from training.layers import Convolution, Dense, Elementwise, Flattening, Layer, Pair, Pooling, Row, Shape, Window

_EXAMPLE = 'for example "conv(10,k3,s2,p1) relu max-pool(2) flatten linear(10)"'
_LAYER = re.compile(r"[\s,;]*([a-z][a-z-]*)(?:\s*\(([^()]*)\)|(?![a-z-]|\s*\())")
# Longer numbers than these mean nothing, and their products would be too long to write.
_SIZE = re.compile(r"([kspd])([0-9]{1,9})(?:x([0-9]{1,9}))?")
_PLAIN = re.compile(r"[0-9]{1,9}")
_SHAPE = re.compile(r"[1-9][0-9]{0,8}(x[1-9][0-9]{0,8}){0,2}")


def parse_shape(written: str) -> Shape:
    """Read a shape such as 3x60x60.

    Raises:
        ImpossibleLayer: it is none, or a size is 0.
    """
    if not _SHAPE.fullmatch(written):
        raise ImpossibleLayer(f"input {written!r}: expected CHANNELSxHEIGHTxWIDTH, for example 3x60x60, or one number")
    return tuple(map(int, written.split("x")))


def parse_layers(written: str) -> list[tuple[str, Layer]]:
    """Read layers, each with a name such as conv2.

    `conv(OUT,kK,sS,pP,dD)`, or `conv(IN,OUT,...)` to have IN checked; `max-pool(K,sS,pP)` (or `pool`), `avg-pool(...)`;
    `relu`, `tanh`, `flatten`; `linear(OUT)` or `linear(IN,OUT)`. A size may differ by axis: k3x5 is 3 high, 5 wide.

    Raises:
        ImpossibleLayer: a layer is not known, or its numbers cannot be read.
    """
    position, counts = 0, Counter[str]()
    layers: list[tuple[str, Layer]] = []
    written = written.strip(" \t\n,;")
    while position < len(written) or not layers:
        found = _LAYER.match(written, position)
        if not found:
            raise ImpossibleLayer(f"layers {written!r}: cannot read {written[position:]!r}; {_EXAMPLE}")
        kind, numbers = found[1], found[2]
        counts[kind] += 1
        layers.append((f"{kind}{counts[kind]}", _layer(found[0].strip(" \t\n,;"), kind, numbers or "")))
        position = found.end()
    return layers


def _layer(written: str, kind: str, numbers: str) -> Layer:
    plain, sizes = _numbers(written, numbers)
    if kind == "conv" and len(plain) in {1, 2} and "k" in sizes:
        window = Window(sizes["k"], sizes.get("s", (1, 1)), sizes.get("p", (0, 0)), sizes.get("d", (1, 1)))
        return Convolution(plain[-1], window, plain[0] if len(plain) == 2 else None)
    if kind in {"pool", "max-pool", "avg-pool"} and len(plain) + ("k" in sizes) == 1 and "d" not in sizes:
        kernel = sizes.get("k") or (plain[0], plain[0])
        window = Window(kernel, sizes.get("s", kernel), sizes.get("p", (0, 0)))
        return Pooling("avg-pool" if kind == "avg-pool" else "max-pool", window)
    if kind == "linear" and len(plain) in {1, 2} and not sizes:
        return Dense(plain[-1], plain[0] if len(plain) == 2 else None)
    if kind in {"relu", "tanh", "flatten"} and not plain and not sizes:
        return Flattening() if kind == "flatten" else Elementwise(kind)
    raise ImpossibleLayer(f"{written}: no layer of this form; {_EXAMPLE}")


def _numbers(written: str, numbers: str) -> tuple[list[int], dict[str, Pair]]:
    """Split "10,k3,s2" into plain numbers and sizes by letter."""
    plain: list[int] = []
    sizes: dict[str, Pair] = {}
    for part in (part.strip() for part in numbers.split(",") if numbers.strip()):
        size = _SIZE.fullmatch(part)
        if size and size[1] not in sizes:
            sizes[size[1]] = (int(size[2]), int(size[3] or size[2]))
        elif _PLAIN.fullmatch(part) and not sizes:
            plain.append(int(part))
        else:
            raise ImpossibleLayer(f"{written}: cannot read {part!r}; {_EXAMPLE}")
    return plain, sizes


def table(rows: Sequence[Row], batch: int | None = None) -> str:
    """Return a table of layers, what they cost together, and how each flat size comes about.

    Args:
        rows: one per layer.
        batch: examples at a time; N stands for any number if None.
    """
    head = ("layer", "kind", "geometry", "input -> output", "how", "weights", "parameters", "multiply-adds")
    body = [_cells(row, batch) for row in rows]
    foot = (
        "total",
        "",
        "",
        "",
        "",
        "",
        f"{sum(r.parameters for r in rows):,}",
        f"{sum(r.multiply_adds for r in rows):,}",
    )
    cells = [head, *body, foot]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    lines = ["  ".join(map(_aligned, line, widths, range(len(head)))).rstrip() for line in cells]
    rule = "-" * max(map(len, lines))
    notes = [
        _legend(rows),
        "Multiply-adds: for one example, in convolutions and linear layers.",
        *_flat_sizes(rows),
    ]
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], "", *notes]) + "\n"


def _legend(rows: Sequence[Row]) -> str:
    """Say what the letters mean, dilation where a layer has one."""
    if not any(" d" in row.geometry for row in rows):
        return "k, s, p: kernel, stride, padding in pixels. A side becomes (side + 2*p - k)//s + 1."
    return (
        "k, s, p, d: kernel, stride, padding, dilation in pixels, d 1 where not said."
        " A side becomes (side + 2*p - (d*(k - 1) + 1))//s + 1."
    )


def _cells(row: Row, batch: int | None) -> tuple[str, ...]:
    many = "N" if batch is None else str(batch)
    before, after = (f"[{','.join([many, *map(str, shape)])}]" for shape in (row.input, row.output))
    weights = " ".join(f"[{','.join(map(str, shape))}]" for shape in row.weights)
    costs = (f"{row.parameters:,}", f"{row.multiply_adds:,}")
    return (row.name, row.kind, row.geometry, f"{before} -> {after}", row.arithmetic, weights, *costs)


def _aligned(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if column >= 6 else cell.ljust(width)


def _flat_sizes(rows: Sequence[Row]) -> list[str]:
    """Say for each flattening how its size comes about, from the first side on."""
    notes = []
    for number, row in enumerate(rows):
        if row.kind != "flatten" or len(row.input) != 3:
            continue
        maps, height, width = row.input
        moves = [f"{r.name} -> {r.output[-1]}" for r in _main_path(rows[:number]) if r.output[-1] != r.input[-1]]
        trail = ", ".join([f"width {rows[0].input[-1]}", *moves])
        notes.append(f"{row.output[0]} into {row.name}: {trail}; {maps} maps of {height}x{width}: {row.arithmetic}.")
    return notes


def _main_path(rows: Sequence[Row]) -> list[Row]:
    """Leave out the layers of a shortcut, which take up a shape from further back than the layer before them."""
    path: list[Row] = []
    seen: set[Shape] = set()
    for row in rows:
        if not path or row.input == path[-1].output or row.input not in seen:
            path.append(row)
        seen |= {row.input, row.output}
    return path
