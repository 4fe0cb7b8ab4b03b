"""Of a machine's many processors a container may have few."""

import shutil
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import Start


def test_where_there_are_64_processors_a_worker_with_two_threads_does_not_start_64(start: Start, tmp_path: Path):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("the machine with many processors needs a C compiler")
    library = str(tmp_path / "processors.so")
    source = str(Path(__file__).with_name("processors.c"))
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    server = start(LD_PRELOAD=library, MNIST_THREADS="2").wait_ready()
    (worker,) = server.worker_pids()
    assert psutil.Process(worker).num_threads() < 64
