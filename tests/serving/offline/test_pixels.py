from pathlib import Path

import numpy as np
import pytest

from serving.errors import InvalidInput
from serving.offline.pixels import decide_scale, to_images, to_labels
from tests.serving.offline.conftest import Score, expected_digits, write_csv

GREYS = np.tile(np.arange(256, dtype=np.float64), 784 * 3)[: 784 * 3].reshape(3, 784)
ROUNDED = GREYS.astype(np.float32) * np.float32(0.00392157)


def test_fractions_a_hair_above_1_by_a_rounded_factor_are_taken_as_0_to_1():
    assert ROUNDED.max() > 1
    assert decide_scale(ROUNDED, "auto") == 1
    images, errors = to_images(ROUNDED, 1)
    assert errors == {}
    np.testing.assert_array_equal(images.reshape(3, 784), GREYS)


@pytest.mark.parametrize(
    ("factor", "largest"), [(2 / 255, "2"), (1.21 / 255, "1.21"), (1.00001 / 255, "1.00001"), (2.42 / 255, "2.42")]
)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_fractions_up_to_about_2_are_refused_unless_the_scale_is_given(dtype: str, factor: float, largest: str):
    rows = (GREYS * factor).astype(dtype)
    with pytest.raises(
        InvalidInput, match=f"^fractions up to {largest}: expected 0 to 1 or 0 to 255; say with --scale"
    ):
        decide_scale(rows, "auto")
    assert decide_scale(rows, "255") == 255
    assert decide_scale(rows, "1") == 1


@pytest.mark.parametrize("largest", [2, 3, 200, 255])
@pytest.mark.parametrize("dtype", ["u1", "i4", "f4"])
def test_whole_numbers_are_taken_as_0_to_255_however_faint(dtype: str, largest: int):
    assert decide_scale(np.array([[0, 1, largest]], dtype), "auto") == 255


def test_fractions_of_255_whose_first_rows_are_faint_stay_0_to_255():
    rows = GREYS * 0.999
    rows[0] /= 300
    assert decide_scale(rows, "auto") == 255


def test_blank_images_are_taken_as_0_to_255():
    assert decide_scale(np.zeros((2, 784)), "auto") == 255
    assert decide_scale(np.zeros((0, 784)), "auto") == 255


def test_what_is_not_finite_does_not_decide_on_the_scale():
    assert decide_scale(np.array([np.nan, np.inf, -np.inf, 0.5, 1]), "auto") == 1


def test_a_row_a_hair_above_1_in_a_file_of_0_to_255_is_an_error():
    rows = np.concatenate([GREYS[:1], ROUNDED[:1]])
    assert to_images(rows, 255)[1] == {1: "values from 0 to 1 only, in a file whose scale is 0 to 255"}


def test_the_pixel_that_is_named_is_the_one_out_of_range():
    rows = ROUNDED[:1].astype(np.float64)
    rows[0, 300] = 1.5
    assert ROUNDED[0, 255] > 1
    assert to_images(rows, 1)[1] == {0: "pixel 300 is 1.5, expected 0 to 1"}


def test_labels_that_are_nan_are_none():
    labels, errors = to_labels(np.array([3, np.nan, 9.5, -1]))
    assert labels.tolist() == [3, -1, -1, -1]
    assert errors == {
        2: "label 9.5, expected a whole number from 0 to 9",
        3: "label -1, expected a whole number from 0 to 9",
    }


@pytest.mark.parametrize("factor", [2 / 255, 1.21 / 255])
def test_fractions_above_1_are_one_error_of_the_source(score: Score, digits, tmp_path: Path, factor: float):
    np.savetxt(tmp_path / "twice.csv", digits[0].reshape(-1, 784) * factor, delimiter=",")
    good = write_csv(tmp_path / "good.csv", digits[0])
    scored = score(tmp_path / "twice.csv", good)
    assert scored.code == 3
    assert scored.errors()[0].startswith("fractions up to ")
    assert scored.digits() == [None, *expected_digits(digits[0])]
