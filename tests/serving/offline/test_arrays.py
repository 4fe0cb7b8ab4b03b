import gzip
from pathlib import Path

import numpy as np
import pytest

from tests.serving.offline.conftest import Score, expected_digits, idx_bytes, npy_bytes, write_gzip


def test_idx_gives_one_row_for_each_image(score: Score, digits, tmp_path: Path):
    images, _ = digits
    path = tmp_path / "anything.bin"
    path.write_bytes(idx_bytes(images))
    scored = score(path)
    assert scored.code == 0
    assert scored.digits() == expected_digits(images)
    assert [row["row"] for row in scored.rows] == list(range(100))
    assert [row["item"] for row in scored.rows] == [str(number) for number in range(100)]
    assert {row["source"] for row in scored.rows} == {str(path)}


def test_g10_idx_is_known_by_its_content_whatever_its_name(score: Score, digits, tmp_path: Path):
    images, _ = digits
    plain, packed = tmp_path / "plain.gz", tmp_path / "packed-idx3-ubyte"
    plain.write_bytes(idx_bytes(images))
    write_gzip(packed, idx_bytes(images))
    scored = score(packed, plain)
    assert scored.code == 0
    assert scored.digits() == expected_digits(images) * 2


def test_g10_mnist_labels_beside_the_images_give_an_accuracy(score: Score, digits, tmp_path: Path):
    images, labels = digits
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(idx_bytes(images))
    write_gzip(tmp_path / "t10k-labels-idx1-ubyte", idx_bytes(labels))
    scored = score(path)
    assert [row["label"] for row in scored.rows] == labels.tolist()
    assert scored.summary["accuracy"] == np.mean(np.array(expected_digits(images)) == labels)
    assert scored.summary["labelled"] == 100
    assert np.sum(scored.summary["confusion"]) == 100


def test_a_folder_with_mnist_as_published_scores_the_images_only(score: Score, digits, tmp_path: Path):
    images, labels = digits
    folder = tmp_path / "mnist"
    folder.mkdir()
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(images))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    scored = score(folder)
    assert (scored.code, len(scored.rows)) == (0, 100)


@pytest.mark.parametrize(
    ("beside", "error"),
    [
        (idx_bytes(np.zeros(99, np.uint8)), "t10k-labels-idx1-ubyte beside it: 100 images, but 99 labels"),
        (idx_bytes(np.zeros(100, np.uint8))[:-1], "beside it: 100 bytes expected, 99 found"),
        (idx_bytes(np.zeros(100, np.uint8)) + b"0", "beside it: 100 bytes expected, more found"),
        (
            gzip.compress(idx_bytes(np.zeros(100, np.uint8)), mtime=0)[:-8] + bytes(8),
            "beside it: broken data: CRC check failed",
        ),
        (idx_bytes(np.zeros((100, 1), np.uint8)), "beside it: labels were expected, found an array of 2 axes"),
        (b"no labels", "beside it: an IDX file of labels was expected"),
    ],
)
def test_wrong_labels_beside_the_images_are_an_error(score: Score, digits, tmp_path: Path, beside: bytes, error: str):
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(idx_bytes(digits[0]))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(beside)
    scored = score(path)
    assert scored.code == 3
    assert error in scored.rows[0]["error"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("cut", "count", "whole"), [(1, None, 99), (0, 101, 100), (784 * 100, None, 0)])
def test_g10_a_cut_idx_gives_its_whole_rows_and_an_error(
    score: Score, digits, tmp_path: Path, packed: bool, cut: int, count: int | None, whole: int
):
    images, _ = digits
    data = idx_bytes(images, count=count)
    data = data[: len(data) - cut]
    path = tmp_path / "cut"
    write_gzip(path, data) if packed else path.write_bytes(data)
    scored = score(path)
    assert scored.code == 3
    assert scored.digits() == [*expected_digits(images[:whole]), None]
    promised = count or 100
    assert scored.rows[-1]["error"] == (
        f"cut short: the header promises {promised} images ({promised * 784} bytes), found {whole} "
        f"({78_400 - cut} bytes)"
    )


def test_g10_bytes_after_the_last_image_are_an_error(score: Score, digits, tmp_path: Path):
    path = tmp_path / "long"
    path.write_bytes(idx_bytes(digits[0], count=99))
    scored = score(path)
    assert scored.rows[-1]["error"] == "784 bytes or more after the last of 99 images"
    assert len(scored.rows) == 100


def test_g10_labels_given_as_images_say_so(score: Score, digits, tmp_path: Path):
    path = tmp_path / "labels"
    path.write_bytes(idx_bytes(digits[1]))
    assert score(path).errors() == ["an IDX file of 100 labels, expected one of images, shape (N, 28, 28)"]


def test_g10_a_forged_header_allocates_nothing(score: Score, tmp_path: Path):
    path = tmp_path / "forged"
    path.write_bytes(bytes([0, 0, 8, 3]) + b"\xff\xff\xff\xff" + (28).to_bytes(4, "big") * 2)
    assert score(path).errors() == [
        "cut short: the header promises 4294967295 images (3367254359280 bytes), found 0 (0 bytes)"
    ]


@pytest.mark.parametrize(("kind", "dtype"), [(0x0D, ">f4"), (0x0E, ">f8"), (0x0B, ">i2"), (0x0C, ">i4")])
def test_g10_idx_of_other_types_is_scaled_by_its_values(score: Score, digits, tmp_path: Path, kind: int, dtype: str):
    images, _ = digits
    path = tmp_path / "other"
    path.write_bytes(idx_bytes(images.astype(dtype), kind))
    assert score(path).digits() == expected_digits(images)


def test_g10_idx_of_fractions_is_taken_as_0_to_1(score: Score, digits, tmp_path: Path):
    images, _ = digits
    path = tmp_path / "fractions"
    path.write_bytes(idx_bytes((images / 255).astype(">f4"), 0x0D))
    assert score(path).digits() == expected_digits(images)


@pytest.mark.parametrize("header", [b"\0\0\x0a\x03", b"\0\0\x08\x03\0\0"])
def test_a_broken_idx_header_is_an_error(score: Score, tmp_path: Path, header: bytes):
    path = tmp_path / "broken"
    path.write_bytes(header)
    assert score(path).errors() == [f"an IDX file with a broken header, magic 0x{header[:4].hex()}"]


def test_idx_of_another_size_is_an_error(score: Score, tmp_path: Path):
    path = tmp_path / "large"
    path.write_bytes(idx_bytes(np.zeros((2, 32, 32), np.uint8)))
    assert "expected an array of shape (N, 28, 28)" in score(path).rows[0]["error"]


SHAPES = [(-1, 28, 28), (-1, 784), (-1, 1, 28, 28), (-1, 28, 28, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_g11_every_layout_gives_the_same_digits(score: Score, digits, tmp_path: Path, shape: tuple[int, ...]):
    images, _ = digits
    path = tmp_path / "images.npy"
    np.save(path, images.reshape(shape))
    assert score(path).digits() == expected_digits(images)


@pytest.mark.parametrize(
    ("dtype", "factor"),
    [("f4", 1 / 255), ("f8", 1 / 255), ("f4", 1), ("f8", 1), ("f2", 1 / 255), ("i8", 1), ("u2", 1), (">f4", 1 / 255)],
)
def test_g11_every_dtype_and_scale_gives_the_same_digits(
    score: Score, digits, tmp_path: Path, dtype: str, factor: float
):
    images, _ = digits
    path = tmp_path / "images.npy"
    np.save(path, (images * factor).astype(dtype))
    assert score(path).digits() == expected_digits(images)


def test_numbers_beyond_every_image_are_errors_without_a_warning(score: Score, digits, tmp_path: Path):
    images = digits[0][:2].astype(np.float64)
    images[0, 3, 3], images[1, 3, 3] = 1.7e308, np.nan
    np.save(tmp_path / "a.npy", images)
    errors = score(tmp_path / "a.npy").errors()
    assert errors == ["pixel 87 is 1.7e+308, expected 0 to 255", "pixel 87 is nan, expected 0 to 255"]


def test_g11_booleans_are_0_and_1(score: Score, digits, tmp_path: Path):
    images = digits[0] > 127
    path = tmp_path / "images.npy"
    np.save(path, images)
    assert score(path).digits() == expected_digits(images.astype(np.uint8) * np.uint8(255))


@pytest.mark.parametrize("dtype", ["u1", "i4", "f4", "f8"])
def test_g11_zeros_and_ones_are_refused_unless_the_scale_is_given(score: Score, digits, tmp_path: Path, dtype: str):
    binary = (digits[0] > 127).astype(dtype)
    path = tmp_path / "images.npy"
    np.save(path, binary)
    assert "say with --scale" in score(path).rows[0]["error"]
    scored = score(path, "--scale", "1")
    assert scored.digits() == expected_digits(binary.astype(np.uint8) * np.uint8(255))
    assert score(path, "--scale", "255").digits() == expected_digits(binary.astype(np.uint8))


def test_g11_a_row_off_the_scale_of_its_file_is_an_error(score: Score, digits, tmp_path: Path):
    images = digits[0][:5].astype(np.float32)
    images[1] /= 255
    images[2, 0, 0] = np.nan
    images[3, 0, 5] = -1
    path = tmp_path / "images.npy"
    np.save(path, images)
    scored = score(path)
    assert scored.errors() == [
        None,
        "values from 0 to 1 only, in a file whose scale is 0 to 255",
        "pixel 0 is nan, expected 0 to 255",
        "pixel 5 is -1, expected 0 to 255",
        None,
    ]
    assert scored.digits()[4] == expected_digits(digits[0][4:5])[0]


def test_g11_object_arrays_are_refused_and_never_unpickled(score: Score, tmp_path: Path):
    marker = tmp_path / "pwned"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (marker,))

    path = tmp_path / "evil.npy"
    path.write_bytes(npy_bytes(np.array([Evil()], object)))
    assert score(path).errors() == ["an array of Python objects (pickles) is not read: save numbers"]
    assert not marker.exists()


@pytest.mark.parametrize(
    ("array", "error"),
    [
        (np.array(["a", "b"]), "expected numbers, got an array of <U1"),
        (np.zeros((3, 28, 27)), "expected an array of shape"),
        (np.zeros((3, 28, 28), complex), "expected numbers, got an array of complex128"),
    ],
)
def test_g11_other_arrays_are_an_error(score: Score, tmp_path: Path, array, error: str):
    path = tmp_path / "other.npy"
    np.save(path, array)
    assert error in score(path).rows[0]["error"]


@pytest.mark.parametrize("header", ["{'descr':", "{'descr': ',U1', 'fortran_order': False, 'shape': (1,)}", "(" * 200])
def test_a_broken_npy_header_is_an_error(score: Score, tmp_path: Path, header: str):
    path = tmp_path / "broken.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    assert score(path).errors() == ["an NPY file with a broken header"]


def test_a_forged_npy_header_allocates_nothing(score: Score, digits, tmp_path: Path):
    path = tmp_path / "forged.npy"
    data = npy_bytes(digits[0])
    path.write_bytes(data.replace(b"(100, 28, 28), }   ", b"(10**9,28,28), }   ").replace(b"10**9", b"10000"))
    scored = score(path)
    assert len(scored.rows) == 101
    assert "promises 10000 images" in scored.rows[-1]["error"]


def test_fortran_order_is_read_by_rows(score: Score, digits, tmp_path: Path):
    images, _ = digits
    path = tmp_path / "columns.npy"
    np.save(path, np.asfortranarray(images))
    assert score(path).digits() == expected_digits(images)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert "cut short" in score(path).rows[0]["error"]
    path.write_bytes(whole + b"0")
    scored = score(path)
    assert scored.digits() == [*expected_digits(images), None]
    assert scored.errors()[-1] == "1 bytes or more after the last of 100 images"


def test_a_huge_array_in_fortran_order_is_refused_before_it_is_read(score: Score, tmp_path: Path):
    path = tmp_path / "columns.npy"
    header = b"{'descr': '|u1', 'fortran_order': True, 'shape': (900000, 784), }"
    path.write_bytes(b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n")
    assert "Fortran order" in score(path).rows[0]["error"]


@pytest.mark.parametrize("shape", [(28, 28), (784,)])
def test_a_single_image_is_one_item(score: Score, digits, tmp_path: Path, shape: tuple[int, ...]):
    path = tmp_path / "one.npy"
    np.save(path, digits[0][0].reshape(shape))
    assert score(path).digits() == expected_digits(digits[0][:1])


def test_an_array_of_no_images_gives_no_rows(score: Score, tmp_path: Path):
    path = tmp_path / "none.npy"
    np.save(path, np.zeros((0, 28, 28), np.uint8))
    scored = score(path)
    assert (scored.code, scored.rows) == (0, [])


def test_blank_rows_have_no_digit(score: Score, digits, tmp_path: Path):
    images = np.stack([np.zeros((28, 28), np.uint8), np.full((28, 28), 255, np.uint8), digits[0][0]])
    path = tmp_path / "blank.npy"
    np.save(path, images)
    scored = score(path)
    assert scored.digits() == [None, None, *expected_digits(images[2:])]
    assert [row["reasons"] for row in scored.rows] == [["blank"], ["blank"], []]
    assert [row["accepted"] for row in scored.rows] == [False, False, True]
    assert scored.summary["refused"] == 2
    assert scored.code == 0


def test_negatives_are_read_like_their_positives(score: Score, digits, tmp_path: Path):
    images, _ = digits
    path = tmp_path / "negative.npy"
    np.save(path, 255 - images)
    assert score(path).digits() == expected_digits(images)
