"""Labels of every format: which are read, and what is wrong with the others."""

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.serving.offline.conftest import Score, csv_header, csv_lines, expected_digits, idx_bytes, png_bytes, table_of


def write_parquet(path: Path, table: pa.Table) -> Path:
    pq.write_table(table, path)
    return path


def test_a_wrong_label_of_idx_is_an_error_of_its_row(score: Score, digits, tmp_path: Path):
    path = tmp_path / "letters-images-idx3-ubyte"
    path.write_bytes(idx_bytes(digits[0][:3]))
    (tmp_path / "letters-labels-idx1-ubyte").write_bytes(idx_bytes(np.array([1, 26, 3], np.uint8)))
    scored = score(path)
    assert scored.errors() == [None, "label 26, expected a whole number from 0 to 9", None]
    assert [row["label"] for row in scored.rows] == [1, None, 3]


@pytest.mark.parametrize(
    ("images", "labels", "error"),
    [
        (3, 1 << 27, "3 images, but 134217728 labels"),
        (1 << 27, 1 << 27, "unpacks to more than 200 times its size"),
    ],
)
def test_g13_labels_beside_idx_take_no_more_than_the_images_need(
    score: Score, digits, tmp_path: Path, images: int, labels: int, error: str
):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(idx_bytes(digits[0][:3], count=images))
    data = idx_bytes(np.zeros(40 << 20, np.uint8), count=labels)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(gzip.compress(data))
    assert score(path).errors() == [f"train-labels-idx1-ubyte beside it: {error}"]


def test_a_wrong_label_of_npz_is_an_error_of_its_row(score: Score, digits, tmp_path: Path):
    path = tmp_path / "digits.npz"
    np.savez(path, x=digits[0][:4], y=np.array([7, 11, np.nan, 2.5]))
    scored = score(path)
    wrong = "label {}, expected a whole number from 0 to 9"
    assert scored.errors() == [None, wrong.format(11), None, wrong.format(2.5)]
    assert [row["label"] for row in scored.rows] == [7, None, None, None]
    assert scored.summary["labelled"] == 1


@pytest.mark.parametrize("empty", ["", '""'])
@pytest.mark.parametrize("bad", [False, True])
def test_an_empty_label_of_csv_is_none(score: Score, digits, tmp_path: Path, empty: str, bad: bool):
    images, labels = digits[0][:6], digits[1][:6].tolist()
    lines = csv_lines(images, [labels[0], empty, labels[2], empty, labels[4], labels[5]])
    if bad:  # the block is read line by line
        lines[5] = "1,2"
    path = tmp_path / "labels.csv"
    path.write_text("\n".join([csv_header(label=True), *lines]) + "\n")
    scored = score(path)
    assert scored.errors() == [None] * 5 + (["expected 785 fields, found 2"] if bad else [None])
    assert [row["label"] for row in scored.rows[:5]] == [labels[0], None, labels[2], None, labels[4]]
    assert scored.digits()[:5] == expected_digits(images[:5])


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.int32(), pa.int64()),
        pa.decimal128(5, 2),
        pa.float32(),
    ],
    ids=str,
)
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_labels_of_any_type_that_holds_numbers(score: Score, digits, tmp_path: Path, form: str, kind: pa.DataType):
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    values = [str(label) for label in digits[1]] if "string" in str(inner) else digits[1].tolist()
    labels = pa.array(values, inner)
    labels = labels.dictionary_encode().cast(kind) if inner != kind else labels
    table = pa.table({"image": pa.array(digits[0].reshape(-1, 784).tolist(), pa.list_(pa.uint8())), "class": labels})
    path = tmp_path / "a"
    if form == "parquet":
        write_parquet(path, table)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=30)
    scored = score(path)
    assert scored.digits() == expected_digits(digits[0])
    assert [row["label"] for row in scored.rows] == digits[1].tolist()


def test_the_category_of_openml_is_the_label(score: Score, digits, tmp_path: Path):
    labels = pa.array(list(map(str, digits[1]))).dictionary_encode()
    table = table_of(digits[0]).append_column("class", labels)
    assert [row["label"] for row in score(write_parquet(tmp_path / "a", table)).rows] == digits[1].tolist()


@pytest.mark.parametrize("encode", [False, True])
def test_texts_that_are_no_label_are_errors_of_their_rows(score: Score, digits, tmp_path: Path, encode: bool):
    labels = pa.array(["7", None, "", "seven", "12", " 3.0 ", "1_0"])
    table = table_of(digits[0][:7]).append_column("label", labels.dictionary_encode() if encode else labels)
    scored = score(write_parquet(tmp_path / "a", table))
    assert scored.errors() == [
        *(None, None, None),
        "label is 'seven', expected a number",
        "label 12, expected a whole number from 0 to 9",
        None,
        "label is '1_0', expected a number",
    ]
    assert [row["label"] for row in scored.rows] == [7, None, None, None, None, 3, None]


@pytest.mark.parametrize("form", ["pictures", "columns"])
def test_a_label_of_text_belongs_to_pictures_too(score: Score, digits, tmp_path: Path, form: str):
    pictures = pa.table({"image": pa.array([png_bytes(image) for image in digits[0][:2]])})
    table = pictures if form == "pictures" else table_of(digits[0][:2])
    scored = score(write_parquet(tmp_path / "a", table.append_column("label", pa.array(["5", "x"]))))
    assert scored.errors() == [None, "label is 'x', expected a number"]
    assert [row["label"] for row in scored.rows] == [5, None]


@pytest.mark.parametrize(
    "labels",
    [
        pa.array([[0, 1], [1, 0]]),
        pa.array([b"1", b"2"]),
        pa.array([b"1", b"2"], pa.binary(1)),
        pa.array([True, False]),
        pa.array([1, 2], pa.timestamp("ns")),
        pa.array([b"1", b"2"]).dictionary_encode(),
        pa.nulls(2),
    ],
    ids=lambda labels: str(labels.type),
)
def test_a_column_that_can_hold_no_labels_is_not_looked_at(score: Score, digits, tmp_path: Path, labels: pa.Array):
    table = table_of(digits[0][:2]).append_column("label", labels)
    scored = score(write_parquet(tmp_path / "a", table))
    assert scored.digits() == expected_digits(digits[0][:2])
    assert [row["label"] for row in scored.rows] == [None, None]


def test_pictures_may_have_the_name_of_a_label(score: Score, digits, tmp_path: Path):
    table = pa.table({"digit": pa.array([png_bytes(image) for image in digits[0][:2]])})
    assert score(write_parquet(tmp_path / "a", table)).digits() == expected_digits(digits[0][:2])
