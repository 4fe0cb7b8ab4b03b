"""Reads a folder of real handwriting and says how many digits are read right.

    python benchmarks/handwriting.py FOLDER [--models models] [--model NAME] [--sheet errors.png]

FOLDER holds pictures and `labels.tsv`: a header, then file, digit, source, separated by tabs.
"""

import argparse
import csv
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).parents[1]))

from serving.errors import ServingError
from serving.preprocess import Prepared, prepare
from serving.reasons import LOW_CONFIDENCE
from serving.repository import LoadedModel, Repository, load
from serving.settings import Settings

TILE_PIXELS = 112


@dataclass(frozen=True)
class Reading:
    """One file: what it shows, what was read."""

    path: Path
    digit: int
    source: str
    prepared: Prepared | None
    error: str
    found: int | None
    confidence: float

    @property
    def right(self) -> bool:
        """Whether the digit was read right, accepted or not."""
        return self.found == self.digit


def read_folder(folder: Path, model: LoadedModel) -> list[Reading]:
    """Read every file that `labels.tsv` names."""
    with (folder / "labels.tsv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    return [_read(folder / row["file"], int(row["digit"]), row["source"], model) for row in rows]


def _read(path: Path, digit: int, source: str, model: LoadedModel) -> Reading:
    try:
        prepared = prepare(path.read_bytes())
    except ServingError as error:
        return Reading(path, digit, source, None, str(error), None, 0.0)
    probabilities = model.runtime.run(prepared.image[np.newaxis]).probabilities[0]
    found = None if prepared.blank else int(probabilities.argmax())
    return Reading(path, digit, source, prepared, "", found, float(probabilities.max()))


def refusals(reading: Reading, min_confidence: float) -> list[str]:
    """Return the reasons for which the service would not accept the reading."""
    if reading.prepared is None:
        return [reading.error]
    doubt = [LOW_CONFIDENCE] if reading.confidence < min_confidence and not reading.prepared.blank else []
    return [*reading.prepared.reasons, *doubt]


def report(readings: list[Reading], model: LoadedModel) -> str:
    """Return accuracy per source, confusions, errors and refusals, as text."""
    by_source = defaultdict(list)
    for reading in readings:
        by_source[reading.source].append(reading.right)
    lines = [f"model {model.name} version {model.version}"]
    lines += [f"{source:24} {sum(right):4} of {len(right):4}" for source, right in sorted(by_source.items())]
    total = sum(reading.right for reading in readings)
    lines.append(f"{'all':24} {total:4} of {len(readings):4}  {100 * total / max(len(readings), 1):.1f} %")
    confusions = Counter((reading.digit, reading.found) for reading in readings if not reading.right)
    lines += [f"{digit} read as {found}: {count}" for (digit, found), count in confusions.most_common()]
    for reading in readings:
        why = refusals(reading, model.manifest.acceptance.min_confidence)
        if why or not reading.right:
            verdict = f"refused: {', '.join(why)}" if why else "accepted"
            lines.append(f"  {reading.path.name}: {reading.digit} read as {reading.found}, {verdict}")
    return "\n".join(lines)


def draw_sheet(readings: list[Reading]) -> Image.Image:
    """Return a contact sheet: each original beside what the model saw of it."""
    columns = 5
    row_pixels = TILE_PIXELS + 16
    rows = max(-(-len(readings) // columns), 1)
    sheet = Image.new("RGB", (columns * (2 * TILE_PIXELS + 8), rows * row_pixels), (70, 70, 90))
    pen = ImageDraw.Draw(sheet)
    for place, reading in enumerate(readings):
        x, y = place % columns * (2 * TILE_PIXELS + 8), place // columns * row_pixels
        pen.text((x, y), f"{reading.digit} read as {reading.found}, {reading.confidence:.2f}")
        if reading.prepared is None:
            continue
        with Image.open(reading.path) as original:
            small = original.convert("RGBA")
        small.thumbnail((TILE_PIXELS, TILE_PIXELS))
        sheet.paste(small, (x, y + 14), small)
        seen = Image.fromarray(reading.prepared.image).resize((TILE_PIXELS, TILE_PIXELS), Image.Resampling.NEAREST)
        sheet.paste(seen, (x + TILE_PIXELS, y + 14))
    return sheet


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="pictures and labels.tsv")
    parser.add_argument("--models", type=Path, default=Path("models"), help="model repository")
    parser.add_argument("--model", default=Settings().default_model, help="name of the model")
    parser.add_argument("--sheet", type=Path, help="where to write the contact sheet of the errors, a PNG")
    options = parser.parse_args(arguments)
    model = load(Repository(options.models).folder(options.model), "cpu", 1)
    try:
        readings = read_folder(options.folder, model)
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}; expected labels.tsv and the pictures that it names")
    if not readings:
        sys.exit(f"{options.folder / 'labels.tsv'}: expected at least one picture")
    print(report(readings, model))
    if options.sheet:
        draw_sheet([reading for reading in readings if not reading.right]).save(options.sheet)
    return 0


if __name__ == "__main__":
    sys.exit(main())
