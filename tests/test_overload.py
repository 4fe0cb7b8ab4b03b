"""That `benchmarks/overload.py` leaves no server behind, and says where nothing was refused."""

import argparse
import subprocess
import sys

import pytest

from benchmarks import overload


@pytest.fixture
def server(monkeypatch):
    """Return a process that is taken for the service."""
    monkeypatch.setattr(overload.os, "sched_setaffinity", lambda _pid, _cores: None)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        monkeypatch.setattr(overload, "start_server", lambda _ports, _home: process)
        yield process
        process.kill()


async def test_a_measurement_that_fails_stops_the_server(server, monkeypatch):
    async def fail(*_) -> bool:
        raise ConnectionResetError

    monkeypatch.setattr(overload, "measure", fail)
    with pytest.raises(ConnectionResetError):
        await overload.run(argparse.Namespace(model="mnist-cnn"))
    assert server.poll() is not None


def test_where_nothing_was_refused_there_is_no_median():
    assert overload._milliseconds([]) == "none"
    assert overload._milliseconds([0.001]) == "median 1.0 ms, p99 1.0 ms"
