import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.serving.offline.conftest import Score, expected_digits, npy_bytes


@pytest.mark.parametrize(
    ("images", "labels"), [("x", "y"), ("images", "labels"), ("arr_0", "arr_1"), ("data", "target")]
)
def test_g11_npz_pairs_images_with_their_labels(score: Score, digits, tmp_path: Path, images: str, labels: str):
    path = tmp_path / "digits.npz"
    np.savez_compressed(path, **{images: digits[0], labels: digits[1].astype(np.int64)})
    scored = score(path)
    assert scored.digits() == expected_digits(digits[0])
    assert [row["label"] for row in scored.rows] == digits[1].tolist()
    assert scored.rows[5]["item"] == f"{images}/5"


def test_npz_of_keras_scores_both_splits(score: Score, digits, tmp_path: Path):
    images, labels = digits
    path = tmp_path / "mnist.npz"
    np.savez(path, x_train=images[:60], y_train=labels[:60], x_test=images[60:], y_test=labels[60:])
    scored = score(path)
    assert scored.digits() == expected_digits(images)
    assert [row["label"] for row in scored.rows] == labels.tolist()


@pytest.mark.parametrize(
    ("arrays", "error"),
    [
        ({"y": np.zeros(3)}, "an NPZ file without an array of images"),
        ({"y": np.zeros(784)}, "an NPZ file without an array of images"),
        ({"x": np.zeros((3, 28, 28)), "y": np.zeros(4)}, "3 images, but 4 labels beside them"),
        ({"x": np.array([{}], object)}, "an array of Python objects (pickles) is not read: save numbers"),
    ],
)
def test_other_npz_files_are_an_error(score: Score, tmp_path: Path, arrays, error: str):
    path = tmp_path / "other.npz"
    np.savez(path, **arrays)
    assert score(path).errors() == [error]


def test_one_bad_array_of_an_npz_file_does_not_hide_the_others(score: Score, digits, tmp_path: Path):
    path = tmp_path / "some.npz"
    np.savez(path, pickled=np.array([{}], object), wrong=np.zeros((3, 4)), x=digits[0])
    scored = score(path)
    assert scored.digits() == [None, None, *expected_digits(digits[0])]
    assert [row["item"] for row in scored.rows[:3]] == ["pickled", "wrong", "x/0"]


@pytest.mark.parametrize(
    "others",
    [
        {"ids": np.arange(100)},
        {"mask": np.arange(100) % 2 == 0},
        {"y": np.arange(100) % 2 == 0},
        {"classes": np.arange(10)},
    ],
    ids=lambda others: next(iter(others)),
)
def test_a_flat_array_that_holds_no_labels_is_not_taken_as_such(score: Score, digits, tmp_path: Path, others):
    path = tmp_path / "digits.npz"
    np.savez(path, x=digits[0], **others)
    scored = score(path)
    assert scored.digits() == expected_digits(digits[0])
    assert {row["label"] for row in scored.rows} == {None}


def test_two_arrays_of_one_name_are_refused_where_the_first_was_lost(score: Score, digits, tmp_path: Path):
    path = tmp_path / "twice.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy_bytes(digits[0]))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("x.npy", npy_bytes(digits[0][:5]))
    assert score(path).errors() == ["more than one array is named 'x'"]


def test_what_macos_packs_beside_arrays_is_no_array(score: Score, digits, tmp_path: Path):
    path = tmp_path / "mac.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("scans.npy", npy_bytes(digits[0]))
        archive.writestr("__MACOSX/._scans.npy", b"\0\5\x16\7\0\2\0\0Mac OS X")
        archive.writestr("labels.npy", npy_bytes(digits[1]))
        archive.writestr("__MACOSX/._labels.npy", b"\0\5\x16\7\0\2\0\0Mac OS X")
    scored = score(path)
    assert scored.code == 0
    assert scored.digits() == expected_digits(digits[0])
    assert [row["label"] for row in scored.rows] == digits[1].tolist()


@pytest.mark.parametrize("convert", [lambda y: y[:, None], lambda y: y.astype(str), lambda y: y.astype("S1")])
def test_labels_may_have_a_second_axis_or_be_text(score: Score, digits, tmp_path: Path, convert):
    path = tmp_path / "digits.npz"
    np.savez(path, train_images=digits[0], train_labels=convert(digits[1]), classes=np.array("0 to 9"), n=np.array(100))
    scored = score(path)
    assert scored.digits() == expected_digits(digits[0])
    assert [row["label"] for row in scored.rows] == digits[1].tolist()


def test_a_label_of_text_that_is_no_number_is_an_error_of_its_row(score: Score, digits, tmp_path: Path):
    path = tmp_path / "digits.npz"
    np.savez(path, X_train=digits[0][:3], Y_train=np.array(["1", "two", ""]), X_test=digits[0][:1], Y_test=[[7]])
    scored = score(path)
    assert scored.errors() == [None, "label is 'two', expected a number", None, None]
    assert [row["label"] for row in scored.rows] == [1, None, None, 7]


@pytest.mark.parametrize("labels", [np.array([0x110000], np.uint32), np.array([0xD800], np.uint32)])
def test_labels_of_broken_text_are_an_error(score: Score, digits, tmp_path: Path, labels):
    path = tmp_path / "digits.npz"
    np.savez(path, x=digits[0][:1], y=labels.view("<U1"))
    assert score(path).errors() == ["y.npy: expected text of numbers"]


@pytest.mark.parametrize("pack", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(("array", "count"), [("x", 3), ("y", 0)])
def test_an_array_with_a_false_checksum_is_an_error(
    score: Score, digits, tmp_path: Path, pack: Callable[..., None], array: str, count: int
):
    path = tmp_path / "digits.npz"
    pack(path, x=digits[0][:3], y=digits[1][:3])
    with zipfile.ZipFile(path) as archive:
        checksum = struct.pack("<L", archive.getinfo(f"{array}.npy").CRC)
    path.write_bytes(path.read_bytes().replace(checksum, bytes(4)))
    scored = score(path)
    assert scored.digits() == [*expected_digits(digits[0][:count]), None]
    assert scored.errors()[-1] == f"broken data: Bad CRC-32 for file '{array}.npy'"


@pytest.mark.parametrize("labels", ["y", "Target", "digit"])
def test_labels_are_known_by_their_name_alone_where_the_images_are_alone(
    score: Score, digits, tmp_path: Path, labels: str
):
    path = tmp_path / "digits.npz"
    np.savez(path, scans=digits[0], ids=np.arange(100), **{labels: digits[1]})
    assert [row["label"] for row in score(path).rows] == digits[1].tolist()


def test_labels_saved_before_the_images_are_paired(score: Score, digits, tmp_path: Path):
    path = tmp_path / "digits.npz"
    np.savez(path, digits[1], digits[0])
    assert [row["label"] for row in score(path).rows] == digits[1].tolist()


def test_a_single_flat_image_is_one_item(score: Score, digits, tmp_path: Path):
    path = tmp_path / "one.npz"
    np.savez(path, x=digits[0][0].reshape(784), y=digits[1][:1])
    scored = score(path)
    assert scored.digits() == expected_digits(digits[0][:1])
    assert [row["label"] for row in scored.rows] == digits[1][:1].tolist()


def test_784_numbers_beside_784_images_are_no_image(score: Score, test_digits, tmp_path: Path):
    images, labels = test_digits[0][:784], test_digits[1][:784]
    path = tmp_path / "many.npz"
    np.savez(path, x=images, y=labels, ids=np.arange(784))
    scored = score(path)
    assert scored.digits() == expected_digits(images)
    assert [row["label"] for row in scored.rows] == labels.tolist()
