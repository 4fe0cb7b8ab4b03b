"""Seeded pictures: one MNIST digit as people would send it, letters, textures. No part of them is used in training."""

import io
import string
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

# NumPy arrays; the annotations of OpenCV and of arithmetic lose the dtype at every step.
Grey = Any

# Letters that are written like a digit say nothing about what is accepted.
LETTERS = "".join(sorted(set(string.ascii_letters) - set("OoQDIliJjZzSsBbGgqTyY")))


def encode(pixels: Grey | Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """Return the bytes of a file, packed quickly if a PNG; pixels uint8 (height, width[, 3 or 4])."""
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    picture.save(buffer, form, **({"compress_level": 1} | options))
    return buffer.getvalue()


def png(pixels: Grey) -> bytes:
    return encode(pixels)


# Strokes


def outline(digit: Grey, height: int, rng: np.random.Generator, level: int = 110) -> Grey:
    """Return the digit, 255 from `level` on and 0 below, its 20x20 box about `height` pixels tall, slightly turned."""
    scale = height / 20
    side = round(28 * scale)
    turn = cv2.getRotationMatrix2D((13.5, 13.5), rng.uniform(-8, 8), 1.0)
    turn = scale * turn
    large = cv2.warpAffine(digit, turn, (side, side), flags=cv2.INTER_CUBIC)
    smooth = cv2.GaussianBlur(large, (0, 0), max(0.25 * scale, 0.3))
    return np.where(smooth > level, 255, 0).astype(np.uint8)


def thin_line(digit: Grey, height: int, thickness: int, rng: np.random.Generator) -> Grey:
    """Return the digit drawn along its middle line with a pen of `thickness` pixels."""
    # The level keeps small loops open, which would otherwise have no middle line.
    fine = skeleton(outline(digit, 84, rng, level=160))
    ys, xs = np.nonzero(fine)
    points = set(zip(xs.tolist(), ys.tolist(), strict=True))
    factor = height / 84
    side = round(fine.shape[0] * factor)
    canvas = np.zeros((side, side), np.uint8)
    for x, y in points:
        start = round(x * factor), round(y * factor)
        for dx, dy in ((1, 0), (0, 1), (1, 1), (1, -1)):
            if (x + dx, y + dy) in points:
                cv2.line(canvas, start, (round((x + dx) * factor), round((y + dy) * factor)), 255, thickness)
    return canvas


def skeleton(binary: Grey) -> Grey:
    """Return the middle line, one pixel wide. Source: Zhang and Suen 1984."""
    shape = np.pad(binary > 0, 1)
    while True:
        before = shape.sum()
        for first in (True, False):
            shape = shape & ~_removable(shape, first)
        if shape.sum() == before:
            return shape[1:-1].astype(np.uint8) * 255


def _removable(shape: Grey, first: bool) -> Grey:
    shifts = [(-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)]
    around = np.stack([np.roll(shape, (-dy, -dx), (0, 1)) for dy, dx in shifts])
    count = around.sum(0)
    changes = (~around & np.roll(around, -1, 0)).sum(0)
    north, east, south, west = around[0], around[2], around[4], around[6]
    gaps = (
        ~(north & east & south) & ~(east & south & west) if first else ~(north & east & west) & ~(north & south & west)
    )
    return shape & (count >= 2) & (count <= 6) & (changes == 1) & gaps


def place(strokes: Grey, rng: np.random.Generator, room: float) -> Grey:
    """Return the strokes somewhere on a canvas that is up to `room` times as wide and high as they are."""
    left, top, width, height = cv2.boundingRect(strokes)
    cut = strokes[top : top + height, left : left + width]
    long = max(width, height)
    canvas_height = round(height + long * rng.uniform(0.12, room))
    canvas_width = round(width + long * rng.uniform(0.12, room))
    canvas = np.zeros((canvas_height, canvas_width), np.uint8)
    edge = max(round(0.04 * long), 1)
    y = int(rng.integers(edge, canvas_height - height - edge + 1))
    x = int(rng.integers(edge, canvas_width - width - edge + 1))
    canvas[y : y + height, x : x + width] = cut
    return canvas


def _mix(paper: Grey, ink: Grey, share: Grey) -> Grey:
    mixed = paper + (ink - paper) * share[..., None]
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


# The five kinds


def paint(digit: Grey, rng: np.random.Generator) -> bytes:
    """A paint program: hard edges, any size, any two colours far apart, opaque or on a transparent canvas."""
    strokes = place(outline(digit, int(rng.integers(22, 420)), rng), rng, 1.5)
    light, dark = rng.integers(200, 256, 3), rng.integers(0, 80, 3)
    paper, ink = (light, dark) if rng.random() < 0.7 else (dark, light)
    if rng.random() < 0.25:
        transparent = np.empty((*strokes.shape, 4), np.uint8)
        transparent[..., :3], transparent[..., 3] = ink, strokes
        return encode(transparent)
    return encode(_mix(paper.astype(float), ink.astype(float), strokes / 255))


def photo(digit: Grey, rng: np.random.Generator) -> bytes:
    """A telephone's photo: coloured paper, light from one side, the edge of a shadow, grain, JPEG blocks."""
    strokes = place(outline(digit, int(rng.integers(90, 420)), rng), rng, 1.2)
    height, width = strokes.shape
    soft = cv2.GaussianBlur(strokes, (0, 0), rng.uniform(0.6, 2.0)) / 255
    paper = np.array([198.0, 190.0, 178.0]) + rng.uniform(-30, 30, 3)
    ink = np.array([40.0, 45.0, 90.0]) + rng.uniform(-30, 40, 3)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    light = 1 + rng.uniform(0.05, 0.25) * along
    if rng.random() < 0.5:
        edge = 1 / (1 + np.exp(-(along - rng.uniform(-0.6, 0.6)) / rng.uniform(0.02, 0.2)))
        light = light * (1 - rng.uniform(0.2, 0.45) * edge)
    shaded = _mix(paper, ink, soft).astype(float) * light[..., None]
    noisy = shaded + rng.normal(0, rng.uniform(2, 8), shaded.shape)
    return encode(np.clip(noisy, 0, 255).astype(np.uint8), "JPEG", quality=int(rng.integers(60, 95)))


def chalk(digit: Grey, rng: np.random.Generator) -> bytes:
    """Chalk on a board: light strokes full of grain, a dark ground with smears of old chalk."""
    strokes = place(outline(digit, int(rng.integers(90, 360)), rng), rng, 1.2)
    height, width = strokes.shape
    grain = cv2.resize(rng.random((height // 2 + 1, width // 2 + 1)), (width, height))
    share = cv2.GaussianBlur(strokes, (0, 0), 1.2) / 255 * np.clip(0.45 + grain, 0, 1)
    smear = cv2.resize(rng.random((3, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
    board = np.array([50.0, 66.0, 58.0]) + rng.uniform(-15, 15, 3) + 40 * np.clip(smear - 0.4, 0, 1)[..., None]
    picture = _mix(board, np.array([225.0, 225.0, 215.0]), share).astype(float)
    noisy = picture + rng.normal(0, rng.uniform(3, 9), (height, width, 1))
    return encode(np.clip(noisy, 0, 255).astype(np.uint8), "JPEG", quality=85)


def scan(digit: Grey, rng: np.random.Generator) -> bytes:
    """A flatbed scan: ruled or squared paper, specks, the dark frame of the lid along one or two edges."""
    strokes = place(outline(digit, int(rng.integers(70, 300)), rng), rng, 1.4)
    height, width = strokes.shape
    paper = np.full((height, width), rng.uniform(225, 250))
    step, line = max(int(min(height, width) * rng.uniform(0.12, 0.4)), 8), rng.uniform(170, 205)
    ruled = rng.random()
    start = int(rng.integers(step))
    if ruled < 0.6:
        paper[start::step] = line
    if ruled < 0.3:
        paper[:, start::step] = line
    share = cv2.GaussianBlur(strokes, (0, 0), 0.7) / 255
    picture = paper + (rng.uniform(20, 90) - paper) * share
    for _ in range(int(rng.integers(0, 12))):
        centre = int(rng.integers(width)), int(rng.integers(height))
        cv2.circle(picture, centre, int(rng.integers(0, 2)), rng.uniform(60, 160), -1)
    picture += rng.normal(0, 3, picture.shape)
    framed = _frame(picture, rng)
    pixels = np.clip(framed, 0, 255).astype(np.uint8)
    return encode(pixels, "TIFF") if rng.random() < 0.5 else encode(pixels)


def _frame(picture: Grey, rng: np.random.Generator) -> Grey:
    sides = [0, 0, 0, 0]
    for side in rng.choice(4, int(rng.integers(0, 3)), replace=False):
        sides[side] = int(rng.integers(2, max(3, min(picture.shape) // 14)))
    level = rng.uniform(5, 60)
    return np.pad(picture, (tuple(sides[:2]), tuple(sides[2:])), constant_values=level)


def thin(digit: Grey, rng: np.random.Generator) -> bytes:
    """A thin pen: one to three pixels, on a small picture or a large one, either polarity."""
    small = rng.random() < 0.3
    height = int(rng.integers(17, 26)) if small else int(rng.integers(60, 500))
    thickness = 1 if height < 120 else int(rng.integers(1, 4))
    strokes = place(thin_line(digit, height, thickness, rng), rng, 1.0)
    pixels = 255 - strokes if rng.random() < 0.7 else strokes
    return encode(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB))


KINDS: dict[str, Callable[[Grey, np.random.Generator], bytes]] = {
    "paint": paint,
    "photo": photo,
    "chalk": chalk,
    "scan": scan,
    "thin": thin,
}


def picture_of(kind: str, digit: Grey, seed: int) -> bytes:
    """Return a file that shows the digit, uint8 (28, 28), as a picture of a kind; the same for the same seed."""
    return KINDS[kind](digit, np.random.default_rng([seed, list(KINDS).index(kind)]))


# Grey levels of the page and of the pen on it.
PAPER, PEN = 235, 40


def page_with(digit: Any, height: int, size: tuple[int, int], corner: tuple[int, int], seed: int) -> Any:
    """Return a page, uint8 of this size (height, width), with the top left corner of the digit's ink at (x, y)."""
    strokes = outline(digit, height, np.random.default_rng(seed))
    left, top, width, height = cv2.boundingRect(strokes)
    page = np.full(size, PAPER, np.uint8)
    x, y = corner
    page[y : y + height, x : x + width][strokes[top : top + height, left : left + width] > 0] = PEN
    return page


# What is no digit

_HERSHEY = [cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_DUPLEX]


def letter(seed: int) -> bytes:
    """Return a file with one letter that is not written like a digit, in one of five typefaces."""
    rng = np.random.default_rng([seed, 101])
    text = LETTERS[int(rng.integers(len(LETTERS)))]
    face = int(rng.integers(5))
    canvas = np.zeros((240, 240), np.uint8)
    if face == 4:
        picture = Image.fromarray(canvas)
        ImageDraw.Draw(picture).text((60, 40), text, fill=255, font=ImageFont.load_default(150))
        canvas = np.array(picture)
    else:
        cv2.putText(canvas, text, (60, 170), _HERSHEY[face], 5, 255, int(rng.integers(6, 22)), cv2.LINE_AA)
    placed = place(canvas, rng, 1.0)
    return encode(255 - placed if rng.random() < 0.7 else placed)


def texture(seed: int) -> bytes:
    """Return a file with no writing on it: noise, waves, cells, clouds, stripes, tiles, solid bodies, scribbles."""
    rng = np.random.default_rng([seed, 102])
    size = int(rng.integers(48, 320)), int(rng.integers(48, 320))
    makers = [_noise, _waves, _cells, _clouds, _stripes, _tiles, _bodies, _scribble]
    pixels = makers[seed % len(makers)](size, rng)
    return encode(np.clip(pixels, 0, 255).astype(np.uint8))


def _noise(size: tuple[int, int], rng: np.random.Generator) -> Grey:
    grain = rng.normal(0, 1, size)
    blurred = cv2.GaussianBlur(grain, (0, 0), rng.uniform(0.5, 4))
    return 128 + rng.uniform(10, 60) * blurred / blurred.std()


def _waves(size: tuple[int, int], rng: np.random.Generator) -> Grey:
    y, x = np.mgrid[: size[0], : size[1]] / min(size)
    waves = sum(np.sin(2 * np.pi * (x * a + y * b) + c) for a, b, c in rng.uniform(-14, 14, (4, 3)))
    return 128 + 30 * waves


def _cells(size: tuple[int, int], rng: np.random.Generator) -> Grey:
    dots = np.full(size, 255, np.uint8)
    dots[rng.integers(0, size[0], 40), rng.integers(0, size[1], 40)] = 0
    distance = cv2.distanceTransform(dots, cv2.DIST_L2, 5)
    return 255 * distance / distance.max()


def _clouds(size: tuple[int, int], rng: np.random.Generator) -> Grey:
    total = np.zeros(size)
    for cells in (3, 6, 12, 24):
        total += cv2.resize(rng.random((cells, cells)), size[::-1], interpolation=cv2.INTER_CUBIC) / cells
    return 255 * (total - total.min()) / np.ptp(total)


def _stripes(size: tuple[int, int], rng: np.random.Generator) -> Grey:
    y, x = np.mgrid[: size[0], : size[1]] / min(size)
    angle = rng.uniform(0, np.pi)
    phase = (x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(4, 20)
    return np.where(phase % 1 < rng.uniform(0.2, 0.8), 220.0, 40.0) + rng.normal(0, 5, size)


def _tiles(size: tuple[int, int], rng: np.random.Generator) -> Grey:
    step = int(rng.integers(8, 40))
    y, x = np.mgrid[: size[0], : size[1]] // step
    tones = rng.uniform(30, 230, (size[0] // step + 1, size[1] // step + 1))
    return tones[y, x] + rng.normal(0, 4, size)


def _bodies(size: tuple[int, int], rng: np.random.Generator) -> Grey:
    picture = np.full(size, rng.uniform(150, 230))
    for _ in range(int(rng.integers(2, 7))):
        centre = int(rng.integers(size[1])), int(rng.integers(size[0]))
        axes = int(rng.integers(8, 60)), int(rng.integers(8, 60))
        cv2.ellipse(picture, centre, axes, rng.uniform(0, 180), 0, 360, rng.uniform(20, 255), -1)
    return cv2.GaussianBlur(picture, (0, 0), 1.5) + rng.normal(0, 4, size)


def _scribble(size: tuple[int, int], rng: np.random.Generator) -> Grey:
    picture = np.full(size, 235.0)
    corners = rng.uniform(0.1, 0.9, (int(rng.integers(14, 40)), 2)) * size[::-1]
    cv2.polylines(picture, [corners.astype(np.int32)], False, 40.0, int(rng.integers(1, 5)), cv2.LINE_AA)
    return picture
