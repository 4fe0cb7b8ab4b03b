import numpy as np
import pytest

from tests.conftest import Digits
from training import pictures

RNG_SEED = 5


def rng() -> np.random.Generator:
    return np.random.default_rng(RNG_SEED)


@pytest.mark.parametrize("draw", [pictures.letter, pictures.scribble, pictures.texture])
def test_pictures_of_no_digit_are_grey_squares_that_differ(draw) -> None:
    generator = rng()
    drawn = [draw(generator) for _ in range(12)]
    assert {picture.shape for picture in drawn} == {(pictures.SIDE_PX, pictures.SIDE_PX)}
    assert {picture.dtype for picture in drawn} == {np.dtype(np.uint8)}
    assert len({picture.tobytes() for picture in drawn}) == 12


def test_outliers_come_in_their_shares_and_in_the_form_of_digits() -> None:
    outliers = pictures.outliers(20, rng())
    assert outliers.shape == (20, 28, 28)
    assert outliers.dtype == np.uint8
    assert (outliers.max(axis=(1, 2)) > 128).all()
    assert np.array_equal(outliers, pictures.outliers(20, rng()))


def test_no_outliers_are_an_empty_array() -> None:
    assert pictures.outliers(0, rng()).shape == (0, 28, 28)


def test_letters_that_hands_write_as_digits_are_left_out() -> None:
    assert not set(pictures.LETTERS) & set("OoIl")
    assert len(pictures.LETTERS) == 48


def test_printed_digits_have_labels_and_are_centred() -> None:
    images, labels = pictures.printed_digits(12, rng())
    assert images.shape == (12, 28, 28)
    assert set(labels) <= set(range(10))
    axis = np.arange(28)
    ink = images.astype(float)
    assert np.abs((ink.sum(axis=1) * axis).sum(axis=1) / ink.sum(axis=(1, 2)) - 13.5).max() < 1.6


def test_printed_digits_are_what_their_labels_say(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    sheet = pictures.letter(rng())
    monkeypatch.setattr(pictures, "_glyph", lambda text, _: drawn.append(int(text)) or sheet)
    _, labels = pictures.printed_digits(12, rng())
    assert drawn == labels.tolist()


def test_redrawn_digits_look_like_the_digits_they_were(test_digits: Digits) -> None:
    originals = test_digits[0][:30]
    redrawn = pictures.redrawn(originals, rng()).astype(float)
    assert redrawn.shape == (30, 28, 28)
    assert not np.array_equal(redrawn, originals)

    def likeness(first: np.ndarray, second: np.ndarray) -> float:
        return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])

    own = [likeness(a, b) for a, b in zip(originals, redrawn, strict=True)]
    others = [likeness(a, b) for a, b in zip(originals, np.roll(redrawn, 1, axis=0), strict=True)]
    assert np.mean(own) > np.mean(others) + 0.3


def test_digits_sent_as_files_come_back_as_they_were_and_paper_as_paper(test_digits: Digits) -> None:
    images = np.concatenate([test_digits[0][:40], np.zeros((1, 28, 28), np.uint8)])
    received = pictures.sent(images)
    assert np.abs(received.astype(int) - images).mean() < 1.0
    assert received[-1].max() == 0


def test_a_picture_without_ink_is_drawn_again() -> None:
    drawn = [np.full((40, 40), 255, np.uint8), pictures.letter(rng())]
    assert pictures.prepared(lambda: drawn.pop(0), 1).shape == (1, 28, 28)
    assert not drawn
