import os
from io import StringIO

import pytest

from serving.offline.progress import Progress


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_log_gets_a_line_every_few_seconds():
    clock, stream = Clock(), StringIO()
    progress = Progress(stream, 1000, clock)
    for step in range(1, 13):
        clock.now_s += 1
        progress.update(step * 1000, 2 if step > 6 else 0, step * 50)
    progress.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0] == " 25% ######.................. 5,000 rows, 800/s, 0:19 left"
    assert lines[1].endswith("10,000 rows, 900/s, 0:11 left, 2 errors")


def test_a_line_is_no_longer_than_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "20")
    clock, stream = Clock(), Terminal()
    progress = Progress(stream, 1000, clock)
    clock.now_s += 0.2
    progress.update(10, 0, 500)
    assert stream.getvalue() == "\r\x1b[K 50% ############.."


def test_a_terminal_gets_one_line_that_is_removed_at_the_end():
    clock, stream = Clock(), Terminal()
    progress = Progress(stream, 1000, clock)
    progress.update(0, 0, 0)
    clock.now_s += 0.2
    progress.update(10, 0, 500)
    progress.close()
    assert stream.getvalue() == "\r\x1b[K 50% ############............ 10 rows, 50/s, 0:00 left\r\x1b[K"


def test_rows_of_an_earlier_run_do_not_count_as_speed():
    clock, stream = Clock(), StringIO()
    progress = Progress(stream, 1000, clock)
    progress.update(500, 0, 500)
    clock.now_s += 10
    progress.update(600, 0, 600)
    assert stream.getvalue() == " 60% ##############.......... 600 rows, 10/s, 0:40 left\n"


def test_without_bytes_there_is_no_time_left_to_tell():
    clock, stream = Clock(), StringIO()
    progress = Progress(stream, 0, clock)
    progress.update(0, 0, 0)
    clock.now_s += 10
    progress.update(5, 5, 0)
    assert stream.getvalue() == "  0% ........................ 5 rows, 0/s, 5 errors\n"


def test_quiet_says_nothing():
    clock = Clock()
    progress = Progress(None, 1000, clock)
    clock.now_s += 60
    progress.update(1, 0, 1)
    progress.close()


def test_a_reader_that_is_gone_is_told_no_more_and_ends_nothing():
    reader, writer = os.pipe()
    os.close(reader)
    clock = Clock()
    with os.fdopen(writer, "w") as stream:
        progress = Progress(stream, 1000, clock)
        for rows in (10, 20):
            clock.now_s += 10
            progress.update(rows, 0, rows)
        progress.close()
