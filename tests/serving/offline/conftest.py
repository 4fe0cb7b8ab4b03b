"""A tiny model, the score command on it, and files to score."""

import csv
import gzip
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from serving.__main__ import main
from serving.offline.apart import ENDED
from tests.serving.tiny_model import expected_logits, write_tiny_model

Images = npt.NDArray[np.uint8]
Row = dict[str, Any]


@dataclass
class Scored:
    """The exit code of a run, its rows, its summary and what it said on standard error."""

    code: int
    rows: list[Row]
    summary: dict[str, Any]
    stderr: str

    def digits(self) -> list[int | None]:
        return [row["digit"] for row in self.rows]

    def errors(self) -> list[str | None]:
        return [row["error"] for row in self.rows]


Score = Callable[..., Scored]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    write_tiny_model(root)
    return root


@pytest.fixture
def score(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Score:
    """Return a function that runs the command and reads what it wrote."""

    def run(*arguments: object, output: Path = tmp_path / "scored.parquet") -> Scored:
        summary = tmp_path / "summary.json"
        summary.unlink(missing_ok=True)
        options = ["--models", models, "--model", "tiny", "--output", output, "--summary", summary, "--quiet"]
        code = main(["score", *map(str, arguments), *map(str, options)])
        rows = pq.read_table(output).to_pylist() if output.suffix == ".parquet" and output.exists() else []
        return Scored(code, rows, json.loads(summary.read_text()) if summary.exists() else {}, capsys.readouterr().err)

    return run


@dataclass
class Deadly:
    """Three pictures of which 1.png ends every process that decodes it, in an environment in which it does."""

    folder: Path
    environment: dict[str, str]

    def command(self, models: Path, output: Path) -> list[str]:
        places = {"--models": models, "--model": "tiny", "--output": output}
        options = [str(part) for option in places.items() for part in option]
        return [sys.executable, "-m", "serving", "score", str(self.folder), *options, "--quiet"]

    def check(self, output: Path) -> None:
        rows = list(csv.DictReader(output.read_text().splitlines()))
        assert [Path(row["source"]).name for row in rows] == ["0.png", "1.png", "2.png"]
        assert [row["error"] for row in rows] == ["", ENDED, ""]
        assert [row["digit"] != "" for row in rows] == [True, False, True]


def make_deadly(place: Path, images: Images, act: str) -> Deadly:
    """Write three pictures; whoever decodes 1.png does what `act` says."""
    folder = place / "pictures"
    folder.mkdir()
    for number, image in enumerate(images[:3]):
        (folder / f"{number}.png").write_bytes(png_bytes(image))
    (place / "sitecustomize.py").write_text(
        "import os, pathlib, signal\n"
        "usual, timer = pathlib.Path.open, signal.setitimer\n"
        "def endless():\n"
        "    while True:\n"
        "        pass\n"
        "def deadly(self, mode='r', buffering=-1, **rest):\n"
        "    if self.name == '1.png' and buffering == 0:\n"
        f"        {act}()\n"
        "    return usual(self, mode, buffering, **rest)\n"
        "pathlib.Path.open = deadly\n"
        "signal.setitimer = lambda kind, seconds: timer(kind, seconds / 100)\n"
    )
    root = Path(__file__).parents[3]
    return Deadly(folder, os.environ | {"PYTHONPATH": os.pathsep.join([str(place), str(root)])})


@pytest.fixture
def deadly(tmp_path: Path, digits: tuple[Images, npt.NDArray[np.uint8]]) -> Deadly:
    return make_deadly(tmp_path, digits[0], "os.abort")


@pytest.fixture(scope="session")
def digits(test_digits: tuple[Images, npt.NDArray[np.uint8]]) -> tuple[Images, npt.NDArray[np.uint8]]:
    """Return a hundred test digits and their labels."""
    images, labels = test_digits
    return images[:100], labels[:100]


def expected_digits(images: Images) -> list[int]:
    """Return what the tiny model says, computed without it."""
    return [int(digit) for digit in expected_logits(images).argmax(axis=1)]


def idx_bytes(array: npt.NDArray[Any], kind: int = 0x08, count: int | None = None) -> bytes:
    sizes = [len(array) if count is None else count, *array.shape[1:]]
    header = bytes([0, 0, kind, len(sizes)]) + b"".join(size.to_bytes(4, "big") for size in sizes)
    return header + array.tobytes()


def csv_lines(images: Images, labels: Iterable[int] | None = None) -> list[str]:
    """Return rows as Kaggle writes them, the label first where there are labels."""
    rows = [",".join(map(str, image.reshape(784).tolist())) for image in images]
    return rows if labels is None else [f"{label},{row}" for label, row in zip(labels, rows, strict=True)]


def csv_header(label: bool, first: int = 0) -> str:
    return ",".join((["label"] if label else []) + [f"pixel{number}" for number in range(first, first + 784)])


def write_csv(path: Path, images: Images, labels: Iterable[int] | None = None) -> Path:
    lines = [csv_header(labels is not None), *csv_lines(images, labels)]
    path.write_text("\n".join(lines) + "\n")
    return path


def png_bytes(image: npt.NDArray[np.uint8], form: str = "PNG") -> bytes:
    stream = BytesIO()
    Image.fromarray(image).save(stream, form)
    return stream.getvalue()


def npy_bytes(array: npt.NDArray[Any]) -> bytes:
    stream = BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def write_gzip(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data, 1))
    return path


def table_of(images: Images, labels: Iterable[int] | None = None) -> pa.Table:
    columns = {f"pixel{number}": pa.array(images.reshape(-1, 784)[:, number]) for number in range(784)}
    return pa.table(({} if labels is None else {"label": list(labels)}) | columns)
