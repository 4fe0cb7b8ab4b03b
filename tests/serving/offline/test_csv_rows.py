import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.offline import csv_lines
from serving.offline.columns import Columns
from serving.offline.csv_rows import Dialect, parse_numbers, parse_whole_numbers
from tests.serving.offline.conftest import Score, csv_header, expected_digits, write_csv
from tests.serving.offline.conftest import csv_lines as csv_lines_of


def write(path: Path, lines: list[str], end: str = "\n") -> Path:
    path.write_bytes((end.join(lines) + end).encode())
    return path


def test_g08_train_csv_of_kaggle_has_labels(score: Score, digits, tmp_path: Path):
    images, labels = digits
    scored = score(write_csv(tmp_path / "train.csv", images, labels))
    assert scored.code == 0
    assert scored.digits() == expected_digits(images)
    assert [row["label"] for row in scored.rows] == labels.tolist()
    assert [row["item"] for row in scored.rows] == [str(line) for line in range(2, 102)]


def test_g08_test_csv_of_kaggle_has_none(score: Score, digits, tmp_path: Path):
    scored = score(write_csv(tmp_path / "test.csv", digits[0]))
    assert scored.digits() == expected_digits(digits[0])
    assert {row["label"] for row in scored.rows} == {None}


@pytest.mark.parametrize("labelled", [True, False])
def test_g08_csv_without_a_header(score: Score, digits, tmp_path: Path, labelled: bool):
    images, labels = digits
    scored = score(write(tmp_path / "rows", csv_lines_of(images, labels if labelled else None)))
    assert scored.digits() == expected_digits(images)
    assert [row["label"] for row in scored.rows] == (labels.tolist() if labelled else [None] * 100)


def test_labels_in_the_last_column_without_a_header_are_refused(score: Score, digits, tmp_path: Path):
    lines = [f"{line},{label}" for line, label in zip(csv_lines_of(digits[0]), digits[1], strict=True)]
    error = "the labels seem to be in the last column: without a header they are expected in the first"
    assert score(write(tmp_path / "last.csv", lines)).errors() == [error]
    zeros = digits[0][digits[1] == 0]
    first = score(write(tmp_path / "zeros.csv", csv_lines_of(zeros, [0] * len(zeros))))
    assert first.digits() == expected_digits(zeros)


def test_g08_columns_are_ordered_by_their_names(score: Score, digits, tmp_path: Path):
    images, labels = digits
    order = np.random.default_rng(0).permutation(785)
    fields = [line.split(",") for line in [csv_header(label=True), *csv_lines_of(images, labels)]]
    scored = score(write(tmp_path / "shuffled.csv", [",".join(np.array(row)[order]) for row in fields]))
    assert scored.digits() == expected_digits(images)
    assert [row["label"] for row in scored.rows] == labels.tolist()


def test_g08_byte_order_mark_windows_lines_and_semicolons(score: Score, digits, tmp_path: Path):
    images, labels = digits
    lines = [line.replace(",", ";") for line in [csv_header(label=True), *csv_lines_of(images, labels)]]
    path = write(tmp_path / "windows.csv", ["\ufeff" + lines[0], *lines[1:]], "\r\n")
    scored = score(path)
    assert scored.digits() == expected_digits(images)
    assert [row["label"] for row in scored.rows] == labels.tolist()


def test_g08_fractions_are_taken_as_0_to_1(score: Score, digits, tmp_path: Path):
    rows = [",".join(f"{value:.6f}" for value in row) for row in digits[0].reshape(-1, 784) / 255]
    assert score(write(tmp_path / "fractions.csv", rows)).digits() == expected_digits(digits[0])


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("256", "pixel 3 is 256, expected 0 to 255"),
        ("-1", "pixel 3 is -1, expected 0 to 255"),
        ("", "field 4 is empty"),
        ("x", "field 4 is 'x', expected a number"),
        ("1e400", "pixel 3 is inf, expected 0 to 255"),
        ("nan", "pixel 3 is nan, expected 0 to 255"),
        ("1_0", "field 4 is '1_0', expected a number"),
    ],
)
@pytest.mark.parametrize("line", [0, 40])
def test_g08_a_bad_value_is_an_error_of_its_line(
    score: Score, digits, tmp_path: Path, value: str, error: str, line: int
):
    images, _ = digits
    lines = csv_lines_of(images)
    lines[line] = ",".join([*lines[line].split(",")[:3], value, *lines[line].split(",")[4:]])
    scored = score(write(tmp_path / "bad.csv", lines))
    assert scored.code == 3
    assert scored.errors() == [error if position == line else None for position in range(100)]
    assert scored.rows[line]["item"] == str(line + 1)
    expected: list[int | None] = [*expected_digits(images)]
    expected[line] = None
    assert scored.digits() == expected


def test_g08_a_short_row_is_an_error_of_its_line(score: Score, digits, tmp_path: Path):
    lines = [csv_header(label=False), *csv_lines_of(digits[0])]
    lines[7] = "1,2,3"
    scored = score(write(tmp_path / "short.csv", lines))
    assert scored.rows[6]["error"] == "expected 784 fields, found 3"
    assert scored.rows[6]["item"] == "8"
    assert scored.errors().count(None) == 99


def test_two_rows_in_one_line_are_one_error(score: Score, digits, tmp_path: Path):
    lines = csv_lines_of(digits[0])
    lines[10:12] = [f"{lines[10]},{lines[11]}"]
    scored = score(write(tmp_path / "joined.csv", lines))
    assert scored.rows[10]["error"] == "expected 784 fields, found 1568"
    assert len(scored.rows) == 99


def test_a_wrong_label_is_an_error(score: Score, digits, tmp_path: Path):
    scored = score(write_csv(tmp_path / "labels.csv", digits[0][:3], [1, 13, 2]))
    assert scored.errors() == [None, "label 13, expected a whole number from 0 to 9", None]


def test_columns_that_are_not_read_may_hold_text(score: Score, digits, tmp_path: Path):
    images, labels = digits
    lines = [f"{number}.png,{line},é" for number, line in enumerate(csv_lines_of(images, labels))]
    scored = score(write(tmp_path / "text.csv", [f"filename,{csv_header(label=True)},note", *lines]))
    assert scored.code == 0
    assert scored.digits() == expected_digits(images)
    assert [row["label"] for row in scored.rows] == labels.tolist()


def test_a_bad_value_beside_text_is_an_error_of_its_line(score: Score, digits, tmp_path: Path):
    images, labels = digits[0][:3], digits[1][:3]
    lines = [f"{number}.png,{line}" for number, line in enumerate(csv_lines_of(images, labels))]
    lines[1] = lines[1].replace(f"1.png,{labels[1]}", "1.png,two")
    scored = score(write(tmp_path / "text.csv", [f"filename,{csv_header(label=True)}", *lines]))
    assert scored.errors() == [None, "field 2 is 'two', expected a number", None]
    assert [row["label"] for row in scored.rows] == [labels[0], None, labels[2]]


def test_fractions_beside_text_are_taken_as_0_to_1(score: Score, digits, tmp_path: Path):
    rows = [",".join(f"{value:.6f}" for value in row) for row in digits[0].reshape(-1, 784) / 255]
    lines = [f"{csv_header(label=False)},file", *(f"{row},a.png" for row in rows)]
    assert score(write(tmp_path / "text.csv", lines)).digits() == expected_digits(digits[0])


def test_a_separator_at_the_end_of_every_line_is_a_column_without_a_name(score: Score, digits, tmp_path: Path):
    lines = [f"{line}," for line in [csv_header(label=True), *csv_lines_of(*digits)]]
    scored = score(write(tmp_path / "trailing.csv", lines))
    assert scored.digits() == expected_digits(digits[0])
    assert [row["label"] for row in scored.rows] == digits[1].tolist()


@pytest.mark.parametrize("factor", [1, 1 / 255])
def test_what_savetxt_writes_is_no_header(score: Score, digits, tmp_path: Path, factor: float):
    path = tmp_path / "saved.csv"
    np.savetxt(path, digits[0].reshape(-1, 784) * factor, delimiter=",")
    assert score(path).digits() == expected_digits(digits[0])


def test_negative_numbers_in_the_first_line_are_no_header(score: Score, digits, tmp_path: Path):
    lines = [",".join(["-0.5"] * 784), *(f"{line}" for line in csv_lines_of(digits[0][:1]))]
    scored = score(write(tmp_path / "signed.csv", lines))
    assert scored.errors() == ["pixel 0 is -0.5, expected 0 to 255", None]


@pytest.mark.parametrize("header", [False, True])
def test_blank_lines_before_the_first_are_no_items(score: Score, digits, tmp_path: Path, header: bool):
    lines = ["", " \t", *([csv_header(label=True)] if header else []), *csv_lines_of(digits[0][:2], digits[1][:2])]
    scored = score(write(tmp_path / "blank.csv", lines))
    assert scored.digits() == expected_digits(digits[0][:2])
    assert [row["item"] for row in scored.rows] == (["4", "5"] if header else ["3", "4"])


def test_g08_gzip_whatever_the_name(score: Score, digits, tmp_path: Path):
    path = write_csv(tmp_path / "rows.csv", *digits)
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert score(path).digits() == expected_digits(digits[0])


@pytest.mark.parametrize(
    "names",
    [
        [f"pixel{number}" for number in range(1, 785)],
        [f"{row}x{column}" for row in range(1, 29) for column in range(1, 29)],
        [str(number) for number in range(784)],
        [f"pixel_{number}" for number in range(784)],
        ['"p0"', *(f"p{number}" for number in range(1, 784))],
    ],
)
def test_g08_names_of_other_origins(score: Score, digits, tmp_path: Path, names: list[str]):
    scored = score(write(tmp_path / "named.csv", [",".join(names), *csv_lines_of(digits[0])]))
    assert scored.digits() == expected_digits(digits[0])


@pytest.mark.parametrize("divisor", [1, 255])
@pytest.mark.parametrize("quote", ["", '"'])
def test_g08_numbers_of_columns_that_begin_with_the_label_are_a_header(
    score: Score, digits, tmp_path: Path, divisor: int, quote: str
):
    images, labels = digits
    rows = [",".join(f"{value / divisor:.6g}" for value in image.reshape(784).tolist()) for image in images]
    header = ",".join(f"{quote}{number}{quote}" for number in range(785))
    lines = [header, *(f"{label},{row}" for label, row in zip(labels, rows, strict=True))]
    scored = score(write(tmp_path / "counted.csv", lines))
    assert scored.digits() == expected_digits(images)
    assert [row["label"] for row in scored.rows] == labels.tolist()
    assert [row["item"] for row in scored.rows] == [str(line) for line in range(2, 102)]


def test_labels_in_the_last_of_numbered_columns_are_refused(score: Score, digits, tmp_path: Path):
    rows = [f"{line},{label}" for line, label in zip(csv_lines_of(digits[0]), digits[1], strict=True)]
    scored = score(write(tmp_path / "last.csv", [",".join(map(str, range(785))), *rows]))
    (error,) = scored.errors()
    assert error.startswith("the labels seem to be in the last column")


def test_g08_dark_ink_on_light_paper_is_turned(score: Score, digits, tmp_path: Path):
    assert score(write_csv(tmp_path / "dark.csv", 255 - digits[0])).digits() == expected_digits(digits[0])


def test_other_columns_are_not_looked_at(score: Score, digits, tmp_path: Path):
    lines = [
        f"id,{csv_header(label=False)}",
        *(f"{number},{line}" for number, line in enumerate(csv_lines_of(digits[0]))),
    ]
    assert score(write(tmp_path / "id.csv", lines)).digits() == expected_digits(digits[0])


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a,b\n1,2\n", "expected 784 pixel columns, pixel0 to pixel783 or pixel1 to pixel784, found 0"),
        ("1,2\n3,4\n", "expected 784 pixel columns and at most one label before them, found 2 columns"),
        (f"label,y,{csv_header(label=False)}\n", "more than one column of labels: label, y"),
        ("29x1,1x1\n", "expected 784 pixel columns, pixel0 to pixel783 or pixel1 to pixel784, found 1"),
    ],
)
def test_other_tables_are_an_error(score: Score, tmp_path: Path, text: str, error: str):
    path = tmp_path / "other.csv"
    path.write_text(text)
    assert score(path).errors() == [error]


def test_utf16_is_an_error(score: Score, digits, tmp_path: Path):
    path = tmp_path / "utf16.csv"
    path.write_bytes("\n".join(csv_lines_of(digits[0])).encode("utf-16"))
    assert score(path).errors() == ["UTF-16 text, expected UTF-8"]


def test_c10_a_header_alone_gives_no_rows(score: Score, tmp_path: Path):
    path = write(tmp_path / "header.csv", [csv_header(label=True)])
    output = tmp_path / "scored.csv"
    scored = score(path, output=output)
    assert scored.code == 0
    assert scored.summary["rows"] == 0
    assert output.read_text() == '"row","source","item","digit","confidence","accepted","reasons","label","error"\n'


def test_blank_lines_are_no_items(score: Score, digits, tmp_path: Path):
    lines = csv_lines_of(digits[0][:4])
    scored = score(write(tmp_path / "blank.csv", [*lines[:2], "", *lines[2:], "", ""]))
    assert scored.digits() == expected_digits(digits[0][:4])
    assert [row["item"] for row in scored.rows] == ["1", "2", "4", "5"]


@pytest.mark.parametrize("text", ["\n\n", "\t\n", "\ufeff,", ",\n"])
def test_a_file_without_a_table_is_an_error(score: Score, tmp_path: Path, text: str):
    path = tmp_path / "blank.csv"
    path.write_text(text)
    scored = score(path)
    assert [bool(error) for error in scored.errors()] == [True]


def test_the_last_line_may_lack_its_end(score: Score, digits, tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(csv_lines_of(digits[0])))
    assert score(path).digits() == expected_digits(digits[0])


def test_a_line_without_end_is_refused_not_held(score: Score, tmp_path: Path):
    path = tmp_path / "line.csv"
    path.write_bytes(b"0," * 2_000_000)
    assert score(path).errors() == ["a line longer than 1048576 bytes"]


def test_several_blocks_keep_order_and_line_numbers(score: Score, test_digits, tmp_path: Path):
    images, labels = test_digits[0][:1500], test_digits[1][:1500]
    scored = score(write_csv(tmp_path / "long.csv", images, labels))
    assert scored.digits() == expected_digits(images)
    assert [row["item"] for row in scored.rows] == [str(line) for line in range(2, 1502)]


@pytest.mark.parametrize("divisor", [1, 255])
def test_a_bad_line_among_quoted_fields_and_floats_is_one_error(score: Score, digits, tmp_path: Path, divisor: int):
    images, labels = digits
    rows = [",".join(f"{value / divisor:.6g}" for value in image.reshape(784).tolist()) for image in images]
    lines = [f'"Doe, ""J"".",{label},{row}' for label, row in zip(labels, rows, strict=True)]
    lines[40] = lines[40].rpartition(",")[0] + ",x"
    lines[60] = "1,2,3"
    scored = score(write(tmp_path / "quoted.csv", [f'"author, name",{csv_header(label=True)}', *lines]))
    expected: list[int | None] = [*expected_digits(images)]
    expected[40] = expected[60] = None
    assert scored.digits() == expected
    assert (scored.errors()[40], scored.errors()[60]) == (
        "field 786 is 'x', expected a number",
        "expected 786 fields, found 3",
    )


def test_a_row_with_line_breaks_in_quotes_is_one_item_named_by_its_first_line(
    score: Score, digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(csv_lines, "BLOCK_BYTES", 5000)
    lines = [f'"a\nb","{image[0, 0]}\n\n",{line}' for image, line in zip(digits[0], csv_lines_of(*digits), strict=True)]
    scored = score(write(tmp_path / "notes.csv", [f"note,other,{csv_header(label=True)}", *lines]))
    assert scored.digits() == expected_digits(digits[0])
    assert [row["label"] for row in scored.rows] == digits[1].tolist()
    assert [row["item"] for row in scored.rows] == [str(2 + 4 * number) for number in range(100)]


def test_a_stray_quote_takes_no_other_line_with_it(score: Score, digits, tmp_path: Path):
    lines = csv_lines_of(digits[0])
    lines[3], lines[50] = f'"{lines[3]}', f'"{lines[50]}'
    assert score(write(tmp_path / "stray.csv", lines)).digits() == expected_digits(digits[0])


def test_numbers_that_are_not_read_may_be_large(digits):
    line = b"60000," + b",".join(b"%d" % value for value in range(3)) + b",,9999\n"
    parsed = parse_whole_numbers(line * 2, Dialect(Columns((1, 2, 3), None, 6), b",", 255))
    assert parsed is not None
    assert parsed[:, 1:4].tolist() == [[0, 1, 2]] * 2


def test_a_block_of_many_short_lines_is_read_in_seconds(score: Score, digits, tmp_path: Path):
    lines = [csv_header(label=False), *csv_lines_of(digits[0][:1]), *['"'] * 20_000, *['""'] * 20_000]
    assert score(write(tmp_path / "short.csv", lines)).summary["errors"] == 40_000


DIALECT = Dialect(Columns((0, 1, 2), None, 3), b",", 255)


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1))
def test_whole_numbers_are_parsed_as_python_does(rows: list[tuple[int, int, int]]):
    data = "".join(f"{a},{b},{c}\n" for a, b, c in rows).encode()
    assert parse_whole_numbers(data, DIALECT).tolist() == [list(row) for row in rows]
    assert parse_numbers(data, DIALECT).tolist() == [list(row) for row in rows]


@given(st.text("0123456789,;\n\r.-x \x00/:", max_size=40))
def test_whole_numbers_are_refused_where_python_reads_others(text: str):
    data = (text + "\n").encode()
    parsed = parse_whole_numbers(data, DIALECT)
    if parsed is not None:
        lines = data.decode().replace("\r\n", "\n").removesuffix("\n").split("\n")
        assert parsed.tolist() == [[int(field) for field in line.split(",")] for line in lines]
        assert parsed.max() <= 255
