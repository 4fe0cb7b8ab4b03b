"""Real handwriting, where a folder of it is beside the project: pictures and `labels.tsv` (file, digit, source)."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.handwriting import Reading, read_folder
from serving.preprocess import prepare
from serving.repository import Repository, load
from serving.settings import Settings

ROOT = Path(__file__).parents[3]
FOLDER = ROOT.parent / "shared" / "handwriting"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="no folder of real handwriting beside the project")


@pytest.fixture(scope="module")
def readings() -> list[Reading]:
    return read_folder(FOLDER, load(Repository(ROOT / "models").folder(Settings().default_model), "cpu", 1))


def test_the_default_model_reads_97_of_100_real_files(readings: list[Reading]):
    assert len(readings) == 100
    assert sum(reading.right for reading in readings) >= 97


def test_case_a03_large_photos_are_read(readings: list[Reading]):
    photos = [reading for reading in readings if reading.source == "Krisut01"]
    assert len(photos) == 20
    assert sum(reading.right for reading in photos) >= 0.8 * len(photos)


def test_case_a04_no_class_takes_more_than_half(readings: list[Reading]):
    for source in {reading.source for reading in readings}:
        found = Counter(reading.found for reading in readings if reading.source == source)
        assert max(found.values()) <= 0.5 * found.total(), source


def test_case_a06_thin_and_small_ones_are_read(readings: list[Reading]):
    small = [reading for reading in readings if reading.source in ("NeuralNine", "DebOguare")]
    assert len(small) == 31
    assert sum(reading.right for reading in small) >= 0.75 * len(small)


def test_case_a01_both_polarities_of_a_real_file_give_the_same_drawing(readings: list[Reading]):
    for reading in readings:
        pixels = cv2.imread(str(reading.path), cv2.IMREAD_UNCHANGED)
        if pixels is None or (pixels.ndim == 3 and pixels.shape[2] == 4):
            continue
        negative = prepare(cv2.imencode(".png", 255 - pixels)[1].tobytes())
        positive = prepare(cv2.imencode(".png", pixels)[1].tobytes())
        difference = np.abs(negative.image.astype(int) - positive.image.astype(int)).mean()
        assert difference < 8, reading.path.name
        assert negative.polarity != positive.polarity, reading.path.name
