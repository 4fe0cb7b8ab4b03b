"""Chooses the strokes that make up the digit among everything that is dark.

Must not know: files, formats, MNIST's form.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from serving.preprocess.grey import Box, Grey

# Of the largest part's longer side: a smaller part is a speck, a part within this gap belongs to the digit.
SPECK_SHARE = 0.12
GAP_SHARE = 0.35


@dataclass(frozen=True, slots=True)
class Strokes:
    """The chosen strokes.

    Attributes:
        mask: uint8 (height, width), 255 on the strokes.
        box: left, top, right, bottom of the mask; None where there is nothing.
        parts: boxes of the connected parts that were chosen, largest first.
        others: boxes of parts of a digit's size that were left out.
        specks: number of small parts that were left out.
    """

    mask: Grey
    box: Box | None
    parts: tuple[Box, ...]
    others: tuple[Box, ...]
    specks: int


def choose(contrast: Grey, threshold: float) -> Strokes:
    """Choose the strokes of one digit.

    Args:
        contrast: uint8 (height, width), 0 = paper.
        threshold: contrast above which a pixel is ink.
    """
    _, binary = cv2.threshold(contrast, threshold, 255, cv2.THRESH_BINARY)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(binary, connectivity=8, ltype=cv2.CV_32S)
    boxes = [(int(x), int(y), int(x + w), int(y + h)) for x, y, w, h, _ in stats[1:]]
    sides = stats[1:, 2:4].max(1) if count > 1 else np.zeros(0, np.int32)
    kept = _drop_frame(boxes, stats[1:], contrast.shape)
    if not kept:
        return Strokes(np.zeros_like(binary), None, (), (), count - 1)
    main = max(kept, key=lambda index: stats[index + 1, 4] * sides[index])
    chosen, others, specks = [main], [], 0
    rest = sorted((index for index in kept if index != main), key=lambda index: -stats[index + 1, 4])
    for index in rest:
        if sides[index] < SPECK_SHARE * sides[main]:
            specks += 1
        elif _gap(boxes[index], _union([boxes[part] for part in chosen])) <= GAP_SHARE * sides[main]:
            chosen.append(index)
        else:
            others.append(index)
    wanted = np.zeros(count, np.uint8)
    wanted[[index + 1 for index in chosen]] = 255
    parts = tuple(boxes[index] for index in chosen)
    return Strokes(wanted[labels], _union(list(parts)), parts, tuple(boxes[index] for index in others), specks)


def _drop_frame(boxes: list[Box], stats: npt.NDArray[Any], shape: tuple[int, ...]) -> list[int]:
    inside = [
        index
        for index, box in enumerate(boxes)
        if not _is_frame(box, shape) and max(box[2] - box[0], box[3] - box[1]) >= 0.015 * max(shape)
    ]
    return inside or [index for index in range(len(boxes)) if stats[index, 4] > 0.001 * shape[0] * shape[1]]


def _is_frame(box: Box, shape: tuple[int, ...]) -> bool:
    height, width = shape
    left, top, right, bottom = box
    along_x = (top == 0 or bottom == height) and right - left > 0.5 * width and bottom - top < 0.25 * height
    along_y = (left == 0 or right == width) and bottom - top > 0.5 * height and right - left < 0.25 * width
    whole = left == 0 and right == width and top == 0 and bottom == height
    return along_x or along_y or whole


def _union(boxes: list[Box]) -> Box:
    left, top, right, bottom = zip(*boxes, strict=True)
    return min(left), min(top), max(right), max(bottom)


def _gap(box: Box, other: Box) -> int:
    horizontal = max(box[0] - other[2], other[0] - box[2], 0)
    vertical = max(box[1] - other[3], other[1] - box[3], 0)
    return max(horizontal, vertical)
