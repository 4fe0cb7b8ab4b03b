import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from serving.offline import writers
from tests.serving.offline.conftest import Score, csv_lines, expected_digits, idx_bytes
from tests.serving.tiny_model import expected_logits

COLUMNS = ["row", "source", "item", "digit", "confidence", "accepted", "reasons", "label", "error"]
PROBABILITIES = [f"p{digit}" for digit in range(10)]


@pytest.fixture
def source(digits, tmp_path: Path) -> Path:
    """Return ten rows, the fourth bad, the fifth blank."""
    lines = csv_lines(digits[0][:10], digits[1][:10])
    lines[3] = "1,2"
    lines[4] = ",".join(["4"] + ["0"] * 784)
    path = tmp_path / "rows, ten.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def softmax(images) -> np.ndarray:
    logits = np.exp(expected_logits(images).astype(np.float64))
    return logits / logits.sum(axis=1, keepdims=True)


def test_parquet_has_typed_columns(score: Score, source: Path, tmp_path: Path):
    score(source)
    schema = pq.read_schema(tmp_path / "scored.parquet")
    assert schema.names == COLUMNS
    assert [str(kind) for kind in schema.types] == [
        "int64",
        "string",
        "string",
        "int8",
        "float",
        "bool",
        "list<element: string>",
        "int8",
        "string",
    ]


def test_rows_say_what_was_read(score: Score, source: Path, digits):
    rows = score(source, "--probabilities").rows
    assert list(rows[0]) == COLUMNS + PROBABILITIES
    probabilities = softmax(digits[0][:10])
    for position in (0, 1, 2, 5, 6, 7, 8, 9):
        row = rows[position]
        assert row["digit"] == probabilities[position].argmax()
        assert row["confidence"] == pytest.approx(probabilities[position].max(), abs=1e-6)
        assert [row[name] for name in PROBABILITIES] == pytest.approx(probabilities[position], abs=1e-6)
    bad, blank = rows[3], rows[4]
    assert [bad[name] for name in ("digit", "confidence", "accepted", "label", "p0")] == [None, None, False, None, None]
    assert [blank[name] for name in ("digit", "confidence", "accepted", "label")] == [None, None, False, 4]
    assert (blank["reasons"], blank["error"]) == (["blank"], None)


def test_rows_are_numbered_through_however_many_groups_they_fill(
    score: Score, digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writers, "GROUP_ROWS", 1)
    paths = [tmp_path / f"{number}.idx" for number in range(3)]
    for path in paths:
        path.write_bytes(idx_bytes(digits[0][:4]))
    score(*paths, "--format", "kaggle", output=tmp_path / "scored.csv")
    numbers = [line.split(",")[0] for line in (tmp_path / "scored.csv").read_text().splitlines()[1:]]
    assert numbers == [str(number) for number in range(1, 13)]
    assert [row["row"] for row in score(*paths).rows] == list(range(12))


def test_csv_and_json_lines_hold_the_same_rows(score: Score, source: Path, tmp_path: Path):
    expected = score(source, "--probabilities").rows
    score(source, "--probabilities", output=tmp_path / "scored.jsonl")
    score(source, "--probabilities", output=tmp_path / "scored.csv")
    lines = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text().splitlines()]
    with (tmp_path / "scored.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    for row, line, fields in zip(expected, lines, table, strict=True):
        assert {name: np.float32(value) if isinstance(value, float) else value for name, value in line.items()} == row
        assert list(fields) == list(line)
        assert fields["source"] == row["source"]
        assert fields["error"] == (row["error"] or "")
        assert fields["reasons"] == ";".join(row["reasons"])
        assert fields["digit"] == ("" if row["digit"] is None else str(row["digit"]))
        assert fields["accepted"] == str(row["accepted"]).lower()


def test_json_lines_have_no_more_digits_than_single_precision(score: Score, source: Path, tmp_path: Path):
    score(source, output=tmp_path / "scored.ndjson")
    first = (tmp_path / "scored.ndjson").read_text().splitlines()[0]
    assert len(str(json.loads(first)["confidence"])) <= 12


def test_the_format_goes_by_the_name_and_by_the_option(score: Score, source: Path, tmp_path: Path):
    score(source, output=tmp_path / "scored")
    assert pq.read_table(tmp_path / "scored").num_rows == 10
    score(source, "--format", "csv", output=tmp_path / "scored")
    assert (tmp_path / "scored").read_text().startswith('"row"')


def test_g14_a_submission_has_an_integer_label_for_each_row(score: Score, source: Path, digits, tmp_path: Path):
    output = tmp_path / "submission.csv"
    scored = score(source, "--format", "kaggle", "--fallback-label", "0", output=output)
    assert scored.code == 3
    labels = expected_digits(digits[0][:10])
    labels[3] = labels[4] = 0
    assert output.read_text() == "ImageId,Label\n" + "".join(f"{n},{label}\n" for n, label in enumerate(labels, 1))


def test_g14_without_a_fallback_a_bad_row_fails_the_submission(score: Score, source: Path, tmp_path: Path):
    output = tmp_path / "submission.csv"
    scored = score(source, "--format", "kaggle", output=output)
    assert scored.code == 1
    assert "row 3 has no digit (expected 785 fields, found 2)" in scored.stderr
    assert "--fallback-label" in scored.stderr
    assert not output.exists()


def test_g14_blank_rows_need_a_fallback_too(score: Score, tmp_path: Path):
    path = tmp_path / "blank"
    path.write_bytes(idx_bytes(np.zeros((1, 28, 28), np.uint8)))
    scored = score(path, "--format", "kaggle", output=tmp_path / "submission.csv")
    assert "row 0 has no digit (nothing is written)" in scored.stderr


def test_g14_order_is_stable_with_many_workers(score: Score, test_digits, tmp_path: Path):
    path = tmp_path / "idx"
    path.write_bytes(idx_bytes(test_digits[0]))
    outputs = []
    for workers in (1, 8):
        output = tmp_path / f"{workers}.csv"
        score(path, "--format", "kaggle", "--workers", workers, "--fallback-label", 0, output=output)
        outputs.append(output.read_text())
    assert outputs[0] == outputs[1]
    lines = outputs[0].splitlines()[1:]
    assert [int(line.split(",")[0]) for line in lines] == list(range(1, 10_001))


def test_groups_number_their_rows_on(score: Score, source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(writers, "GROUP_ROWS", 4)
    scored = score(source, source, source)
    assert [row["row"] for row in scored.rows] == list(range(30))
    assert pq.ParquetFile(tmp_path / "scored.parquet").num_row_groups > 1
