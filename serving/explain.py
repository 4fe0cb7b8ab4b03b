"""What happens inside a network for one picture: every layer's values, its kernels, and what covering the ink changes.

Must not know: transports, training.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from serving import onnx_checks
from serving.errors import ModelRejected, Unsupported
from serving.manifest import LAYERS_FILE_NAME, Manifest
from serving.repository import require_file
from serving.runtime import INPUT, open_on_cpu

# The key of the file's metadata under which the layers are described.
LAYERS_KEY = "layers"
LOGITS = "logits"

# Largest difference of a logit from the golden digits of `model.onnx`: float32 rounding, on whichever processor.
TOLERANCE = 1e-3

# Side of the square of paper that covers a part of the drawing, in pixels: wider than a pen stroke, which is 3 to 4.
COVER_SIDE = 5

Image = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]
Shape = list[Annotated[int, Field(ge=1)]]
Pair = tuple[int, int]


class LayerRecord(BaseModel):
    """One layer, as `layers.onnx` describes it; shapes are those of one example, without the batch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: str
    tensor: str = Field(description="the graph's output that holds the layer's values")
    source: str | None = Field(description="the layer whose values come in; null for the picture itself")
    geometry: str = Field(description="kernel, stride and padding as text")
    arithmetic: str = Field(description="the formula of the output's shape with its numbers")
    input_shape: Shape
    output_shape: Shape
    kernel_size: Pair | None = None
    stride: Pair | None = None
    padding: Pair | None = None
    parameters: int
    multiply_adds: int
    weight: str | None = Field(default=None, description="the graph's output that holds the kernels or factors")
    bias: str | None = Field(default=None, description="the graph's output that holds what is added")


_RECORDS = TypeAdapter(Annotated[list[LayerRecord], Field(min_length=1)])


class LayeredModel:
    """The checked `layers.onnx` of a model version: the same weights, every layer an output.

    It runs on the CPU with one thread: it answers people, one picture at a time.

    Args:
        folder: `.../NAME/VERSION`.
        manifest: of that version.

    Raises:
        Unsupported: the version has no such file.
        ModelRejected: the file failed a check.
    """

    def __init__(self, folder: Path, manifest: Manifest):
        if manifest.layers is None:
            raise Unsupported(f"{manifest.name} version {manifest.version} was published without {LAYERS_FILE_NAME}")
        content = _read(folder / LAYERS_FILE_NAME, manifest.layers.sha256)
        self._session = open_on_cpu(content, threads=1)
        self.sha256 = manifest.layers.sha256
        self.records = self._read_records()
        self.kernels: dict[str, Values] = dict(self._run_kernels())
        _check_golden(self, manifest)

    def _read_records(self) -> list[LayerRecord]:
        text = self._session.get_modelmeta().custom_metadata_map.get(LAYERS_KEY, "")
        try:
            records = _RECORDS.validate_json(text)
        except ValidationError as error:
            raise ModelRejected("layers", "no readable description of them", f"metadata {LAYERS_KEY!r}") from error
        there = {output.name for output in self._session.get_outputs()}
        named = {name for record in records for name in (record.tensor, record.weight, record.bias) if name}
        if missing := named - there:
            raise ModelRejected("layers", f"no output {min(missing)!r}", "every layer and kernel an output")
        return records

    def _run_kernels(self) -> Iterator[tuple[str, Values]]:
        names = [name for record in self.records for name in (record.weight, record.bias) if name]
        if names:
            yield from zip(names, self._session.run(names, {INPUT: np.zeros((1, 28, 28), np.uint8)}), strict=True)

    def logits(self, images: Image) -> Values:
        """Return the logits, float32 (N, 10), of images uint8 (N, 28, 28)."""
        values: Values = self._session.run([LOGITS], {INPUT: images})[0]
        return values

    def run(self, image: Image) -> dict[str, Values]:
        """Return the values of every layer by its name, float32, without the batch, for an image uint8 (28, 28)."""
        tensors = [record.tensor for record in self.records]
        values = self._session.run(tensors, {INPUT: image[np.newaxis]})
        return {record.name: value[0] for record, value in zip(self.records, values, strict=True)}


def _read(path: Path, sha256: str) -> bytes:
    require_file(path)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise ModelRejected(f"SHA-256 of {path.name}", digest, sha256)
    graph = onnx_checks.parse(content)
    if external := onnx_checks.external_tensors(graph):
        raise ModelRejected("external data", ", ".join(external[:3]), "every tensor inside the file")
    if foreign := onnx_checks.foreign_operators(graph):
        raise ModelRejected("operators", ", ".join(foreign[:3]), "operators of ONNX's default domain")
    return content


def _check_golden(model: LayeredModel, manifest: Manifest) -> None:
    images = np.stack([digit.image() for digit in manifest.golden])
    expected = np.array([digit.logits for digit in manifest.golden], np.float32)
    difference = float(np.abs(model.logits(images) - expected).max())
    if not difference <= TOLERANCE:
        raise ModelRejected(f"golden digits in {LAYERS_FILE_NAME}", f"logits off by {difference:.3g}", f"{TOLERANCE:g}")


def cover(image: Image, side: int = COVER_SIDE) -> tuple[Image, npt.NDArray[np.intp]]:
    """Cover the drawing with a square of paper, once centred on each pixel where that hides ink.

    Args:
        image: uint8 (28, 28), 0 = paper, 255 = ink.
        side: of the square, in pixels, odd.

    Returns:
        uint8 (K, 28, 28), and the centres, (K, 2), row and column; K = 0 for a blank picture.

    Source: Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2.
    """
    reach = side // 2
    padded = np.pad(image, reach)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side))
    centres = np.argwhere(windows.any(axis=(2, 3)))
    covered = np.repeat(padded[np.newaxis], len(centres), axis=0)
    for number, (row, column) in enumerate(centres):
        covered[number, row : row + side, column : column + side] = 0
    height, width = image.shape
    return covered[:, reach : reach + height, reach : reach + width], centres


def occlusion_map(uncovered: Values, covered: Values, centres: npt.NDArray[np.intp]) -> Values:
    """Return the probabilities with the cover on each pixel: float32 (28, 28, 10).

    Args:
        uncovered: probabilities of the whole drawing, float32 (10,); they hold where the cover hides no ink.
        covered: float32 (K, 10), one row for each centre.
        centres: (K, 2), from `cover`.
    """
    result = np.tile(uncovered.astype(np.float32), (28, 28, 1))
    result[centres[:, 0], centres[:, 1]] = covered
    return result
