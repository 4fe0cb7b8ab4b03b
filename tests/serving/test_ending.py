from pathlib import Path

from serving.ending import announce_end, everyone_ends


def test_everyone_ends_when_it_was_announced(tmp_path: Path):
    assert not everyone_ends(tmp_path)
    announce_end(tmp_path)
    announce_end(tmp_path)
    assert everyone_ends(tmp_path)


def test_a_lone_process_is_everyone():
    assert everyone_ends(None)


def test_an_end_before_there_are_workers_is_told_to_nobody(tmp_path: Path):
    announce_end(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
