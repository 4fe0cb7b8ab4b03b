import base64
import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import softmax

from serving.manifest import MODEL_FILE_NAME, Manifest, read_manifest
from serving.runtime import OnnxModel
from tests.conftest import Digits as TestDigits
from training import choices as choices_module
from training.architectures import build
from training.calibration import Bin, expected_calibration_error, reliability
from training.checkpoint import Checkpoint, EpochRecord, load, path_of, save, siblings
from training.choices import Choices, choose, validation_digits
from training.evaluate import evaluate, predictor
from training.figures import Scores, _is_best
from training.mnist import Mnist
from training.model_card import model_card
from training.plots import misread_digits, reliability_points
from training.publish import publish
from training.recipe import find
from training.report import CARD_FILE_NAME, REPORT_FILE_NAME
from training.verify import Digits

LIMIT_BYTES = 500_000


def untrained(seed: int) -> Checkpoint:
    """Return a network that has learned nothing, after two epochs of doing so, by a recipe that does not mind."""
    torch.manual_seed(seed)
    recipe = replace(find("mnist-cnn", "best"), epochs=2, validation_size=200, min_accuracy=0.0, outliers=3000)
    return Checkpoint(
        architecture="mnist-cnn",
        recipe=recipe,
        seed=seed,
        epoch=2,
        history=tuple(EpochRecord(epoch, 2.3 / epoch, 0.1, "validation", 1.0) for epoch in (1, 2)),
        state_dict=build("mnist-cnn").state_dict(),
        optimizer={},
        device="cpu",
        threads="1, 2",
    )


@pytest.fixture(scope="module")
def data(test_digits: TestDigits) -> Mnist:
    """Return the first 500 test digits as test set and the 1,500 behind them as training set."""
    images, labels = (torch.tensor(array) for array in test_digits)
    return Mnist(images[500:2000], labels[500:2000].long(), images[:500], labels[:500].long())


@pytest.fixture(scope="module")
def folder(data: Mnist, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a version that was published with a sibling at another seed."""
    chosen = choose(untrained(1), data)
    return publish(
        untrained(1),
        data,
        tmp_path_factory.mktemp("models"),
        lambda _: None,
        temperature=chosen.temperature,
        acceptance=chosen.acceptance,
        siblings=[untrained(2)],
    )


@pytest.fixture(scope="module")
def manifest(folder: Path) -> Manifest:
    return read_manifest(folder)


def test_the_report_needs_no_other_file_and_no_network(folder: Path) -> None:
    page = (folder / REPORT_FILE_NAME).read_text(encoding="utf-8")
    assert not re.search(r"https?://|<script|<link|src=\"(?!data:)", page)
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == 5
    for picture in pictures:
        with Image.open(BytesIO(base64.b64decode(picture))) as image:
            assert image.width > 200


def test_the_report_shows_figures_layers_checks_and_recipe(folder: Path, manifest: Manifest) -> None:
    page = (folder / REPORT_FILE_NAME).read_text(encoding="utf-8")
    accuracy = {record.split: record for record in manifest.accuracy}
    for expected in (
        f"{100 * accuracy['test'].accuracy:.2f} %",
        f"{100 * accuracy['validation'].accuracy:.2f} %",
        manifest.file.sha256,
        "conv2",
        "seeds 1, 2",
        "label_smoothing",
        "<td>processes</td><td>1</td>",
        "<td>threads</td><td>1, 2</td>",
        *(check.name for check in manifest.checks),
    ):
        assert expected in page


def test_pictures_stand_beside_the_report_and_all_is_small(folder: Path) -> None:
    names = {path.name for path in folder.glob("*.png")}
    assert names == {"curves.png", "confusion.png", "reliability.png", "risk_coverage.png", "misread.png"}
    sizes = [path.stat().st_size for path in folder.iterdir() if path.suffix in {".png", ".html", ".md"}]
    assert sum(sizes) < LIMIT_BYTES


def test_the_manifest_has_both_splits_calibration_and_seeds(manifest: Manifest, data: Mnist) -> None:
    assert [record.split for record in manifest.accuracy] == ["validation", "test"]
    assert [record.total for record in manifest.accuracy] == [200, 500]
    assert manifest.calibration is not None
    assert manifest.seeds is not None
    assert manifest.seeds.seeds == [1, 2]
    other = evaluate(predictor(untrained(2).model()), data.test_images.numpy(), data.test_labels.numpy())
    assert manifest.seeds.accuracies == [manifest.accuracy[1].accuracy, other.accuracy]
    assert manifest.seeds.lowest <= manifest.seeds.mean <= manifest.seeds.highest
    assert manifest.acceptance.chosen_on == "validation"


def test_what_the_threshold_costs_is_measured_on_the_test_digits(folder: Path, manifest: Manifest, data: Mnist) -> None:
    found = OnnxModel(folder / MODEL_FILE_NAME, "cpu").run(data.test_images.numpy()).probabilities
    accepted = found.max(axis=1) >= manifest.acceptance.min_confidence
    wrong = found.argmax(axis=1) != data.test_labels.numpy()
    assert manifest.acceptance.coverage == pytest.approx(accepted.mean())
    assert manifest.acceptance.error_among_accepted == pytest.approx(wrong[accepted].mean())
    assert manifest.calibration is not None
    error = expected_calibration_error(reliability(found, data.test_labels.numpy()))
    assert manifest.calibration.error_test == pytest.approx(error)


def test_the_card_says_what_it_is_for_and_from_what_it_learnt(folder: Path, manifest: Manifest) -> None:
    card = (folder / CARD_FILE_NAME).read_text(encoding="utf-8")
    assert card == model_card(manifest)
    for expected in ("Intended use", "Not for", "Limits", "200 training digits", "3,000 pictures of letters", "mean"):
        assert expected in card


def test_only_a_seed_that_validation_likes_best_was_chosen(manifest: Manifest, data: Mnist) -> None:
    assert manifest.seeds is not None
    assert "the temperature, the threshold and\nthe seed were chosen on them" in model_card(manifest)
    worse = manifest.seeds.model_copy(update={"best_on_validation": False})
    card = model_card(manifest.model_copy(update={"seeds": worse}))
    assert "the temperature and the\nthreshold were chosen on them" in card


@pytest.mark.parametrize(("accuracy", "is_best"), [(0.09, True), (0.1, True), (0.11, False)])
def test_the_best_seed_is_the_one_that_read_most_validation_digits_right(accuracy: float, is_best: bool) -> None:
    sibling = untrained(2)
    sibling = replace(sibling, history=(*sibling.history[:-1], replace(sibling.history[-1], accuracy=accuracy)))
    assert _is_best(untrained(1), [sibling]) == is_best
    unvalidated = replace(untrained(1), recipe=replace(untrained(1).recipe, validation_size=0))
    assert not _is_best(unvalidated, [sibling])


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_seed_whose_weights_are_no_numbers_is_left_out_with_a_warning(
    value: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine, broken = replace(untrained(1), seed=1), replace(untrained(2), seed=2)
    next(iter(broken.state_dict.values())).view(-1)[0] = float(value)
    paths = [path_of(tmp_path, made.recipe, made.seed) for made in (mine, broken)]
    for made, path in zip((mine, broken), paths, strict=True):
        save(made, path)
    assert siblings(paths[0], load(paths[0])) == []
    assert caplog.messages == [
        f"left out of the comparison of seeds: {paths[1]} holds weights that are not finite numbers"
    ]


def test_the_threshold_refuses_no_more_digits_than_allowed(data: Mnist, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = untrained(1)
    digits = validation_digits(checkpoint, data)
    assert digits is not None
    # Ten untrained logits err in nine of ten answers: no threshold keeps the error, so the other bound decides.
    chosen = choose(checkpoint, data)
    logits = predictor(checkpoint.model())(digits.images)
    confidence = softmax(logits.astype(np.float64) / chosen.temperature, axis=1).max(axis=1)
    assert (confidence < chosen.acceptance.min_confidence).mean() <= 0.007
    monkeypatch.setattr(choices_module, "MAX_REFUSED", 0.5)
    assert choose(checkpoint, data).acceptance.min_confidence > chosen.acceptance.min_confidence


def test_a_threshold_that_keeps_the_error_and_refuses_less_is_chosen(
    data: Mnist, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def lowest(confidence: np.ndarray, right: np.ndarray, *, max_error: float) -> float:
        asked.append(max_error)
        return 0.01

    monkeypatch.setattr(choices_module, "choose_threshold", lowest)
    assert choose(untrained(1), data).acceptance.min_confidence == 0.01
    assert asked == [0.001]


def test_without_validation_images_nothing_is_chosen(data: Mnist) -> None:
    checkpoint = replace(untrained(1), recipe=find("mnist-cnn", "seed"))
    assert choose(checkpoint, data) == Choices()


def test_no_misread_digits_make_no_picture(test_digits: TestDigits) -> None:
    images, labels = test_digits
    perfect = np.eye(10, dtype=np.float32)[labels[:50]]
    assert misread_digits(Scores(perfect, Digits(images[:50], labels[:50]))) is None


@pytest.mark.parametrize(("wrong", "rows", "in_last_row"), [(1, 1, 1), (10, 1, 10), (11, 2, 1), (45, 4, 10)])
def test_misread_digits_stand_ten_in_a_row_up_to_forty(wrong: int, rows: int, in_last_row: int) -> None:
    labels, answers = np.zeros(50, np.int64), np.arange(50) < wrong
    probabilities = np.eye(10, dtype=np.float32)[answers.astype(np.int64)]
    drawn = misread_digits(Scores(probabilities, Digits(np.full((50, 28, 28), 255, np.uint8), labels)))
    assert drawn is not None
    picture = np.asarray(Image.open(BytesIO(drawn)).convert("L")) < 128
    # The middle of each digit is black, its title above it is not black throughout.
    height = picture.shape[0] / rows
    across = [picture[round((row + 0.6) * height)].astype(np.int8) for row in range(rows)]
    assert [int((np.diff(line) > 0).sum()) for line in across] == [10] * (rows - 1) + [in_last_row]


def test_a_bin_without_a_doubt_or_an_error_is_drawn() -> None:
    doubt, errors = reliability_points((Bin(10, 0.9, 0.7), Bin(50, 1.0, 1.0)))
    assert doubt == pytest.approx([0.1, 2**-25])
    assert errors == pytest.approx([0.3, 0.01])
