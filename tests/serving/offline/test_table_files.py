import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serving.errors import InvalidInput
from serving.offline import table_files, tables
from serving.offline.table_files import parquet_batches
from tests.serving.offline.conftest import Score, expected_digits, png_bytes


@pytest.mark.parametrize("form", ["parquet", "stream"])
@pytest.mark.parametrize("kind", ["struct", pa.binary(), pa.large_binary(), pa.binary_view()])
def test_g13_a_picture_in_a_table_larger_than_any_is_an_error_of_its_row(
    score: Score, digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: pa.DataType | str, form: str
):
    monkeypatch.setattr(tables, "PICTURE_BYTES", 5000)
    pictures = [png_bytes(digits[0][0]), bytes(5001), None, png_bytes(digits[0][1])]
    column = pa.array([{"bytes": data} for data in pictures]) if kind == "struct" else pa.array(pictures, kind)
    table = pa.table({"image": column})
    if form == "parquet":
        pq.write_table(table, tmp_path / "a")
    else:
        with pa.ipc.new_stream(tmp_path / "a", table.schema) as writer:
            writer.write_table(table)
    scored = score(tmp_path / "a")
    assert scored.errors() == [None, "more than 5000 bytes", "empty", None]
    assert scored.digits() == [expected_digits(digits[0])[0], None, None, expected_digits(digits[0])[1]]


@pytest.mark.parametrize("wrap", [pa.array, lambda pictures: pa.array([{"bytes": data} for data in pictures])])
def test_g13_a_batch_holds_no_more_rows_than_may_all_be_the_largest_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrap
):
    monkeypatch.setattr(table_files, "BATCH_BYTES", 1 << 20)
    data = np.random.default_rng(0).bytes
    large = data(200_000)
    # The first group of rows holds one picture in its dictionary, the second one some that are small.
    with pq.ParquetWriter(tmp_path / "a", pa.schema({"image": wrap([b""]).type})) as writer:
        for group in ([large] * 64, [data(100) for _ in range(64)]):
            writer.write_table(pa.table({"image": wrap(group)}))
    sizes = [batch.num_rows for batch, _ in parquet_batches(tmp_path / "a")]
    assert sizes == [5] * 12 + [4] + [64]


def test_g13_pictures_that_are_packed_too_well_are_refused_before_they_are_unpacked(
    score: Score, digits, tmp_path: Path
):
    pictures = [[png_bytes(digits[0][0])], [bytes(17 << 20), png_bytes(digits[0][1])]]
    with pq.ParquetWriter(tmp_path / "a", pa.schema({"image": pa.binary()}), compression="zstd") as writer:
        for group in pictures:
            writer.write_table(pa.table({"image": pa.array(group)}))
    scored = score(tmp_path / "a")
    assert scored.errors() == [None, "unpacks to more than 200 times its size"]
    batches = parquet_batches(tmp_path / "a")
    next(batches)
    before = pa.total_allocated_bytes()
    with pytest.raises(InvalidInput):
        next(batches)
    assert pa.total_allocated_bytes() <= before


@pytest.mark.parametrize("new", [pa.ipc.new_stream, pa.ipc.new_file])
@pytest.mark.parametrize("size", [33, 62])
def test_pictures_whose_views_have_a_broken_size_do_not_end_the_run(
    score: Score, digits, tmp_path: Path, new, size: int
):
    table = pa.table({"image": pa.array([png_bytes(image) for image in digits[0][:2]], pa.binary_view())})
    with new(tmp_path / "a", table.schema) as writer:
        writer.write_table(table)
    data = (tmp_path / "a").read_bytes()
    views = np.array([0, 0, 0, 32], "<i8").tobytes()  # where the validity and the views begin, and how long they are
    assert data.count(views) == 1
    (tmp_path / "a").write_bytes(data.replace(views, np.array([0, 0, 0, size], "<i8").tobytes()))
    assert score(tmp_path / "a").digits() == expected_digits(digits[0][:2])


@pytest.mark.parametrize("form", ["columns", "lists"])
def test_g13_pixels_that_are_packed_too_well_are_refused_before_they_are_unpacked(
    score: Score, tmp_path: Path, form: str
):
    rows = 30_000
    column = pa.array(np.zeros(rows, np.uint8))
    table = pa.table({f"pixel{number}": column for number in range(784)})
    if form == "lists":
        table = pa.table({"pixels": pa.array([bytes(784)] * rows, pa.binary(784))})
    pq.write_table(table, tmp_path / "a", compression="zstd", use_dictionary=False, max_rows_per_page=rows)
    assert score(tmp_path / "a").errors() == ["unpacks to more than 200 times its size"]


# Reads an Arrow file that another process makes shorter meanwhile.
READ_CUT = """
import os, sys
from pathlib import Path
from serving.offline.table_files import arrow_batches

path = Path(sys.argv[1])
try:
    for number, (batch, _) in enumerate(arrow_batches(path, sys.argv[2])):
        batch.validate(full=True)
        os.truncate(path, 100_000)
except OSError:
    print(number + 1)
"""


@pytest.mark.parametrize("form", ["arrow_stream", "arrow_file"])
def test_an_arrow_file_that_becomes_shorter_while_it_is_read_does_not_end_the_process(tmp_path: Path, form: str):
    table = pa.table({"pixels": pa.array([bytes(784)] * 1000, pa.binary(784))})
    with (pa.ipc.new_stream if form == "arrow_stream" else pa.ipc.new_file)(tmp_path / "a", table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    ended = subprocess.run([sys.executable, "-c", READ_CUT, tmp_path / "a", form], capture_output=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"1\n", b"")


# Reads a file, and that with each byte of its end changed, in the lower or upper half: Thrift puts two numbers there.
READ_BROKEN = """
import sys
from tests.fuzz.targets import TARGETS

data, read = sys.stdin.buffer.read(), TARGETS["table"].read
end = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
assert read(data)
for place in range(end, len(data)):
    for change in (0x01, 0x03, 0x10, 0x30):
        read(data[:place] + bytes([data[place] ^ change]) + data[place + 1:])
"""


def test_pictures_in_a_parquet_file_whose_own_description_is_broken_do_not_end_the_process(digits):
    pq.write_table(pa.table({"image": [{"bytes": png_bytes(image)} for image in digits[0][:3]]}), file := io.BytesIO())
    ended = subprocess.run(
        [sys.executable, "-c", READ_BROKEN], input=file.getvalue(), stderr=subprocess.PIPE, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
