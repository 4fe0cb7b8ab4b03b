import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from tests.serving.offline.conftest import Score, expected_digits, png_bytes, table_of


def write_parquet(path: Path, table: pa.Table, **options: object) -> Path:
    pq.write_table(table, path, **options)
    return path


def lists_of(images, kind: pa.DataType) -> pa.Array:
    return pa.array(images.reshape(-1, 784).tolist(), kind)


def test_pixel_columns_in_any_order(score: Score, digits, tmp_path: Path):
    table = table_of(*digits)
    order = np.random.default_rng(0).permutation(785)
    path = write_parquet(tmp_path / "a", table.select([table.column_names[position] for position in order]))
    scored = score(path)
    assert scored.code == 0
    assert scored.digits() == expected_digits(digits[0])
    assert [row["label"] for row in scored.rows] == digits[1].tolist()
    assert [row["item"] for row in scored.rows] == [str(number) for number in range(100)]


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.uint8()),
        pa.list_(pa.int64()),
        pa.large_list(pa.uint8()),
        pa.list_(pa.uint8(), 784),
        pa.list_(pa.float32()),
    ],
    ids=str,
)
def test_one_column_of_lists(score: Score, digits, tmp_path: Path, kind: pa.DataType):
    table = pa.table({"anything": lists_of(digits[0], kind), "label": digits[1]})
    scored = score(write_parquet(tmp_path / "a", table))
    assert scored.digits() == expected_digits(digits[0])
    assert [row["label"] for row in scored.rows] == digits[1].tolist()


def test_one_column_of_nested_lists(score: Score, digits, tmp_path: Path):
    table = pa.table({"image": pa.array(digits[0].tolist(), pa.list_(pa.list_(pa.uint8())))})
    assert score(write_parquet(tmp_path / "a", table)).digits() == expected_digits(digits[0])


@pytest.mark.parametrize("shape", [(1, 28, 28), (28, 28, 1)])
def test_lists_may_have_an_axis_for_the_channel(score: Score, digits, tmp_path: Path, shape: tuple[int, int, int]):
    images = digits[0][:9].reshape(9, *shape).tolist()
    for rows in (images, [*images, None]):  # at once and one by one
        table = pa.table({"image": pa.array(rows, pa.list_(pa.list_(pa.list_(pa.uint8()))))})
        assert score(write_parquet(tmp_path / "a", table)).digits()[:9] == expected_digits(digits[0][:9])


def test_nested_lists_of_other_lengths_are_errors_of_their_rows(score: Score, digits, tmp_path: Path):
    image = digits[0][0].tolist()
    ragged = [image[0][:27], [*image[1], 0], *image[2:]]
    rows = [image, ragged, digits[0][0].reshape(14, 56).tolist()]
    table = pa.table({"image": pa.array(rows, pa.list_(pa.list_(pa.uint8())))})
    assert score(write_parquet(tmp_path / "a", table)).errors() == [
        None,
        "expected 784 pixels, found lists of unequal lengths",
        "expected 784 pixels, found 14 x 56",
    ]


def test_one_column_of_raw_bytes(score: Score, digits, tmp_path: Path):
    column = pa.array([image.tobytes() for image in digits[0]], pa.binary(784))
    assert score(write_parquet(tmp_path / "a", pa.table({"pixels": column}))).digits() == expected_digits(digits[0])


def test_missing_raw_bytes_are_errors_of_their_rows(score: Score, digits, tmp_path: Path):
    column = pa.array([digits[0][0].tobytes(), None, digits[0][1].tobytes()], pa.binary(784))
    scored = score(write_parquet(tmp_path / "a", pa.table({"pixels": column})))
    assert scored.errors() == [None, "expected 784 pixels, found null", None]
    assert scored.digits()[2] == expected_digits(digits[0][1:2])[0]


def test_fractions_in_lists(score: Score, digits, tmp_path: Path):
    column = lists_of(digits[0] / 255, pa.list_(pa.float64()))
    assert score(write_parquet(tmp_path / "a", pa.table({"x": column}))).digits() == expected_digits(digits[0])


@pytest.mark.parametrize("kind", ["struct", pa.binary(), pa.large_binary(), pa.binary_view()])
def test_one_column_of_encoded_pictures(score: Score, digits, tmp_path: Path, kind: pa.DataType | str):
    pictures = [png_bytes(image) for image in digits[0]]
    wrapped = [{"bytes": picture, "path": "x.png"} for picture in pictures]
    column = pa.array(wrapped) if kind == "struct" else pa.array(pictures, kind)
    table = pa.table({"image": column, "label": digits[1].astype(np.int64)})
    scored = score(write_parquet(tmp_path / "a", table))
    assert scored.digits() == expected_digits(digits[0])
    assert [row["label"] for row in scored.rows] == digits[1].tolist()


def test_broken_and_missing_pictures_are_errors_of_their_rows(score: Score, digits, tmp_path: Path):
    pictures = [png_bytes(digits[0][0]), b"no picture", None, png_bytes(digits[0][1])]
    scored = score(write_parquet(tmp_path / "a", pa.table({"image": pa.array(pictures)})))
    assert scored.code == 3
    assert [bool(error) for error in scored.errors()] == [False, True, True, False]
    assert scored.errors()[2] == "empty"


@pytest.mark.parametrize("first", [0, 1])
def test_a_missing_struct_is_an_error_of_its_row_whatever_lies_below(score: Score, digits, tmp_path: Path, first: int):
    below = pa.array([png_bytes(image) for image in digits[0][:3]])
    structs = pa.StructArray.from_arrays([below], ["bytes"], mask=pa.array([False, True, False]))
    with pa.ipc.new_stream(tmp_path / "a", pa.schema({"image": structs.type})) as writer:
        writer.write_table(pa.table({"image": structs[first:]}))
    scored = score(tmp_path / "a")
    assert scored.errors() == [None, "empty", None][first:]
    assert scored.digits()[-1] == expected_digits(digits[0][2:3])[0]


def test_wrong_lists_are_errors_of_their_rows(score: Score, digits, tmp_path: Path):
    rows = [digits[0][0].reshape(-1).tolist(), [1, 2, 3], None, digits[0][1].reshape(-1).tolist(), [None] * 784]
    scored = score(write_parquet(tmp_path / "a", pa.table({"x": pa.array(rows, pa.list_(pa.uint8()))})))
    assert scored.errors() == [
        None,
        "expected 784 pixels, found 3",
        "expected 784 pixels, found null",
        None,
        "pixel 0 is nan, expected 0 to 255",
    ]
    assert scored.digits()[3] == expected_digits(digits[0][1:2])[0]


def test_ragged_lists_of_the_right_total_are_errors(score: Score, digits, tmp_path: Path):
    rows = [[0] * 700, [0] * 868]
    scored = score(write_parquet(tmp_path / "a", pa.table({"x": pa.array(rows, pa.list_(pa.uint8()))})))
    assert scored.errors() == ["expected 784 pixels, found 700", "expected 784 pixels, found 868"]


def test_a_null_pixel_is_an_error_of_its_row(score: Score, digits, tmp_path: Path):
    table = table_of(digits[0][:3])
    column = pa.array([1, None, 2], pa.uint8())
    path = write_parquet(tmp_path / "a", table.set_column(5, "pixel5", column))
    assert score(path).errors() == [None, "pixel5 is null", None]


def test_labels_may_be_null_and_may_be_wrong(score: Score, digits, tmp_path: Path):
    table = table_of(digits[0][:3]).append_column("label", pa.array([7, None, 10]))
    scored = score(write_parquet(tmp_path / "a", table))
    assert [row["label"] for row in scored.rows] == [7, None, None]
    assert scored.errors() == [None, None, "label 10, expected a whole number from 0 to 9"]


@pytest.mark.parametrize("other", [[[0.1] * 16] * 3, [b"x" * 32] * 3], ids=["embedding", "sha"])
def test_pixel_columns_come_before_a_column_of_lists_or_bytes(
    score: Score, digits, tmp_path: Path, other: list[object]
):
    images, labels = digits[0][:3], digits[1][:3]
    scored = score(write_parquet(tmp_path / "a", table_of(images, labels).append_column("other", pa.array(other))))
    assert scored.digits() == expected_digits(images)
    assert [row["label"] for row in scored.rows] == labels.tolist()


def test_pixel_columns_of_text_leave_the_column_of_lists(score: Score, digits, tmp_path: Path):
    texts = {f"pixel{number}": ["1"] * 100 for number in range(784)}
    table = pa.table(texts | {"x": lists_of(digits[0], pa.list_(pa.uint8()))})
    assert score(write_parquet(tmp_path / "a", table)).digits() == expected_digits(digits[0])


@pytest.mark.parametrize(
    ("table", "error"),
    [
        (pa.table({"a": [1]}), "expected 784 pixel columns, pixel0 to pixel783 or pixel1 to pixel784, found 0"),
        (pa.table({"a": [[1]], "b": [b"x"]}), "expected 784 pixel columns"),
        (pa.table({"a": [{"x": 1}]}), "expected 784 pixel columns"),
        (pa.table({f"pixel{number}": ["1"] for number in range(784)}), "the pixel columns hold no numbers"),
        (pa.table({"a": [["1"] * 784]}), "expected 784 pixel columns"),
        (pa.table({"a": [{"bytes": 1}]}), "expected 784 pixel columns"),
        (pa.table({"a": pa.StructArray.from_arrays([[b"x"], [b"y"]], ["bytes"] * 2)}), "expected 784 pixel columns"),
        (pa.table([[[1]], [[1]]], names=["image", "image"]), "more than one column is named 'image'"),
        (pa.table([[[1]], ["x"]], names=["image", "image"]), "more than one column is named 'image'"),
        (pa.table({"image": [[1]], "label": [1], "digit": [2]}), "more than one column of labels: label, digit"),
        (pa.table({"image": [[1]], "label": [1], "class": ["2"]}), "more than one column of labels: label, class"),
        (pa.table([[[1]], [1], ["x"]], names=["image", "label", "label"]), "more than one column is named 'label'"),
    ],
)
def test_other_tables_are_an_error(score: Score, tmp_path: Path, table: pa.Table, error: str):
    assert error in score(write_parquet(tmp_path / "a", table)).rows[0]["error"]


def test_a_broken_parquet_file_is_an_error(score: Score, digits, tmp_path: Path):
    path = write_parquet(tmp_path / "a", table_of(digits[0]))
    path.write_bytes(path.read_bytes()[:-100])
    scored = score(path)
    assert scored.code == 3
    assert scored.errors()[0].startswith("broken data: ")


def test_a_parquet_file_whose_names_are_no_text_is_an_error(score: Score, digits, tmp_path: Path):
    path = write_parquet(tmp_path / "a", pa.table({"image": lists_of(digits[0], pa.list_(pa.uint8()))}))
    path.write_bytes(path.read_bytes().replace(b"image", b"im\xffge"))
    assert score(path).errors()[0].startswith("broken data: ")


def test_a_parquet_file_that_promises_fewer_rows_than_it_holds_is_read(score: Score, digits, tmp_path: Path):
    path = write_parquet(tmp_path / "a", pa.table({"image": lists_of(digits[0][:3], pa.list_(pa.uint8()))}))
    # Thrift: the number of rows, times two for its sign, before the list of one group of rows.
    data, three, none = path.read_bytes(), b"\x16\x06\x19\x1c", b"\x16\x00\x19\x1c"
    assert data.count(three) == 1
    path.write_bytes(data.replace(three, none))
    assert pq.ParquetFile(path).metadata.num_rows == 0
    assert score(path).digits() == expected_digits(digits[0][:3])


@pytest.mark.parametrize("form", ["stream", "file"])
def test_arrow_lists_that_lead_out_of_the_file_are_an_error(score: Score, digits, tmp_path: Path, form: str):
    table = pa.table({"x": lists_of(digits[0][:2], pa.list_(pa.uint8()))})
    new = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
    with new(tmp_path / "a", table.schema) as writer:
        writer.write_table(table)
    data = (tmp_path / "a").read_bytes()
    offsets = np.array([0, 784, 1568], "<i4").tobytes()
    assert data.count(offsets) == 1
    (tmp_path / "a").write_bytes(data.replace(offsets, np.array([0, 784, 1 << 30], "<i4").tobytes()))
    assert score(tmp_path / "a").errors()[0].startswith("broken data: In column 0: Invalid: Offset invariant")


@pytest.mark.parametrize("form", ["stream", "file", "feather"])
def test_arrow_streams_and_files(score: Score, digits, tmp_path: Path, form: str):
    table, path = table_of(*digits), tmp_path / "a"
    if form == "feather":
        feather.write_feather(table, path)
    else:
        new = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
        with new(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=30)
    scored = score(path)
    assert scored.digits() == expected_digits(digits[0])
    assert [row["label"] for row in scored.rows] == digits[1].tolist()
    assert [row["item"] for row in scored.rows] == [str(number) for number in range(100)]


def test_slices_of_a_large_batch_keep_their_rows(score: Score, test_digits, tmp_path: Path):
    images, labels = test_digits[0][:2500], test_digits[1][:2500]
    path = tmp_path / "a"
    for table in (table_of(images, labels), pa.table({"x": lists_of(images, pa.list_(pa.uint8())), "label": labels})):
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
        scored = score(path)
        assert scored.digits() == expected_digits(images)
        assert [row["label"] for row in scored.rows] == labels.tolist()


def test_a_table_inside_an_archive_is_an_error(score: Score, digits, tmp_path: Path):
    path = write_parquet(tmp_path / "a", table_of(digits[0]))
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert score(path).errors() == ["a parquet inside an archive is not read: unpack it first"]
