"""Whether `benchmarks/offline.py` times scorers that read the same digits."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.offline import SCORED, check_digits

DIGITS = [3, 1, 4, 1, 5] * 400


def check(folder: Path, bare: list[int]) -> str | None:
    """Return what is wrong with these digits beside those of the scorer."""
    pq.write_table(pa.table({"digit": pa.array(DIGITS, pa.int8())}), folder / SCORED)
    lines = ["row,digit", *(f"{row},{digit}" for row, digit in enumerate(bare))]
    (folder / "bare.csv").write_text("\n".join(lines) + "\n")
    return check_digits(["scorer", "bare"], len(DIGITS), folder)


def test_the_same_digits_are_right(tmp_path: Path):
    assert check(tmp_path, DIGITS) is None


@pytest.mark.parametrize(
    ("bare", "wrong"),
    [(DIGITS[:-1], "bare wrote 1999 digits of 2000 images"), ([9, 9, 9, *DIGITS[3:]], "bare reads 3 of 2000 digits")],
)
def test_other_digits_are_said(tmp_path: Path, bare: list[int], wrong: str):
    assert wrong in (check(tmp_path, bare) or "")
