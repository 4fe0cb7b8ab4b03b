"""The committed models, measured anew on the whole test set: what their manifests say, and what was promised."""

from functools import cache
from pathlib import Path

import pytest

from serving.manifest import Manifest, read_manifest
from serving.repository import Repository, load
from tests.conftest import DATA
from training import mnist
from training.figures import Scores, digits_of_the_test, score
from training.model_card import model_card
from training.report import CARD_FILE_NAME, REPORT_FILE_NAME
from training.selective import select

MODELS = Repository(Path(__file__).parents[2] / "models")
BEST = [
    folder
    for folder in (MODELS.folder(name, version) for name in MODELS.names() for version in MODELS.versions(name))
    if load(folder, "cpu", 1).manifest.training.recipe == "best"
]
NEWEST = {folder.parent.name: folder for folder in BEST}


@cache
def measured(folder: Path) -> tuple[Manifest, Scores]:
    model = load(folder, "cpu")
    return model.manifest, score(model.runtime, digits_of_the_test(mnist.load(DATA)))


def by_name(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


@pytest.mark.usefixtures("real_mnist")
@pytest.mark.parametrize("folder", BEST, ids=by_name)
def test_calibration_and_selection_are_the_manifests(folder: Path) -> None:
    manifest, test = measured(folder)
    assert manifest.calibration is not None
    assert manifest.calibration.error_test == pytest.approx(test.calibration_error, abs=1e-5)
    selection = select(test.confidence, test.right, manifest.acceptance.min_confidence)
    assert manifest.acceptance.coverage == pytest.approx(selection.coverage, abs=2e-4)
    assert manifest.acceptance.error_among_accepted == pytest.approx(selection.error, abs=2e-4)
    assert manifest.seeds is not None
    assert test.evaluation.accuracy in manifest.seeds.accuracies


@pytest.mark.usefixtures("real_mnist")
@pytest.mark.parametrize("folder", NEWEST.values(), ids=by_name)
def test_confidence_is_honest_and_few_digits_are_refused(folder: Path) -> None:
    manifest, _ = measured(folder)
    assert manifest.calibration is not None
    assert manifest.calibration.error_test <= 0.003
    assert manifest.acceptance.coverage is not None
    assert manifest.acceptance.coverage >= 0.985


@pytest.mark.parametrize("folder", BEST, ids=by_name)
def test_a_report_and_a_card_lie_beside_the_model(folder: Path) -> None:
    assert f"version {folder.name}" in (folder / REPORT_FILE_NAME).read_text(encoding="utf-8")
    assert (folder / CARD_FILE_NAME).read_text(encoding="utf-8") == model_card(read_manifest(folder))
    reports = [path for path in folder.iterdir() if path.suffix in {".html", ".md", ".png"}]
    assert sum(path.stat().st_size for path in reports) < 500_000
