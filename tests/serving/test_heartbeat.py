import os
from pathlib import Path

import pytest

from serving.heartbeat import PREFIX, Heartbeat, forget_others, silence_s


def test_silence_is_the_time_since_the_latest_beat(tmp_path: Path):
    heart = Heartbeat(tmp_path)
    assert silence_s(tmp_path, os.getpid(), 100.0) == 0
    heart.start(50.0)
    assert silence_s(tmp_path, os.getpid(), 100.0) == pytest.approx(50)
    heart.beat(99.5)
    assert silence_s(tmp_path, os.getpid(), 100.0) == pytest.approx(0.5)


def test_a_process_without_a_folder_has_no_heartbeat():
    heart = Heartbeat(None)
    heart.start(1.0)
    heart.beat(2.0)


def test_a_folder_that_cannot_be_written_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    heart = Heartbeat(tmp_path / "gone")
    heart.start(1.0)
    heart.beat(2.0)
    assert caplog.text.count("no heartbeat") == 1
    assert silence_s(tmp_path / "gone", os.getpid(), 100.0) == 0


def test_what_others_left_is_forgotten(tmp_path: Path):
    heart = Heartbeat(tmp_path)
    heart.start(1.0)
    (tmp_path / f"{PREFIX}1").touch()
    (tmp_path / "counter_1.db").touch()
    forget_others(tmp_path, {os.getpid()})
    assert {path.name for path in tmp_path.iterdir()} == {f"{PREFIX}{os.getpid()}", "counter_1.db"}
