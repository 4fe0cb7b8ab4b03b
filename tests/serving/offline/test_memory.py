"""A million rows, most of them holes in a sparse file: 784 MB for a reader that holds them at once."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROWS = 1_000_000
LIMIT_MB = 600

# The kernel's own mark of this process alone; getrusage starts from that of the parent.
MEASURED = """
import sys
from pathlib import Path
from serving.__main__ import main
code = main(sys.argv[1:])
(line,) = [line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith('VmHWM')]
print(int(line.split()[1]) // 1024)
sys.exit(code)
"""


def write_npy(path: Path) -> None:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({ROWS}, 784), }}\n".encode()
    with path.open("wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        file.truncate(file.tell() + ROWS * 784)


def write_parquet(path: Path) -> None:
    rows = pa.FixedSizeBinaryArray.from_buffers(pa.binary(784), 10_000, [None, pa.py_buffer(bytes(784 * 10_000))])
    table = pa.table({"pixels": pa.chunked_array([rows] * (ROWS // 10_000))})
    pq.write_table(table, path, row_group_size=ROWS, use_dictionary=False)
    assert pq.ParquetFile(path).num_row_groups == 1


@pytest.mark.slow
@pytest.mark.parametrize("write", [write_npy, write_parquet])
def test_g07_memory_is_bounded_by_batches_not_by_files(models: Path, tmp_path: Path, write):
    source, output = tmp_path / "source", tmp_path / "scored.parquet"
    write(source)
    arguments = ["score", source, "--models", models, "--model", "tiny", "--quiet", "--output", output]
    command = [sys.executable, "-c", MEASURED, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert int(ended.stdout) < LIMIT_MB
    rows = pq.read_table(output, columns=["row", "item", "digit"])
    assert np.array_equal(rows["row"].to_numpy(), np.arange(ROWS))
    assert rows["digit"].null_count == ROWS
    assert rows["item"][-1].as_py() == str(ROWS - 1)
