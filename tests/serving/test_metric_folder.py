import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serving.metric_folder import PREFIX, hold, new_folder

HOLD = "import pathlib, sys; from serving.metric_folder import hold; hold(pathlib.Path(sys.argv[1]))"

Instance = subprocess.Popen[bytes]


@pytest.fixture
def instance() -> Iterator[Callable[[Path], Instance]]:
    """Start processes that hold a folder each, and write into it, until their input ends."""
    made: list[Instance] = []

    def start(folder: Path) -> Instance:
        folder.mkdir()
        code = f"{HOLD}; (pathlib.Path(sys.argv[1]) / 'counter.db').touch(); print(flush=True); sys.stdin.read()"
        command = [sys.executable, "-c", code, folder]
        made.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        assert made[-1].stdout is not None
        assert made[-1].stdout.readline() == b"\n"
        return made[-1]

    yield start
    for process in made:
        process.communicate(timeout=20)


def other(folder: Path) -> None:
    """Let another instance begin and end, in the same folder for temporary files."""
    new = folder / f"{PREFIX}new"
    new.mkdir()
    subprocess.run([sys.executable, "-c", HOLD, new], check=True)
    assert not new.exists()


def test_a_folder_goes_with_its_process_and_not_before(tmp_path: Path, instance: Callable[[Path], Instance]):
    folder = tmp_path / f"{PREFIX}1"
    process = instance(folder)
    other(tmp_path)
    assert (folder / "counter.db").exists()
    process.communicate(timeout=20)
    assert not folder.exists()


def test_what_a_killed_instance_left_is_removed_by_the_next(tmp_path: Path, instance: Callable[[Path], Instance]):
    folder = tmp_path / f"{PREFIX}1"
    process = instance(folder)
    process.kill()
    process.wait()
    assert (folder / "counter.db").exists()
    other(tmp_path)
    assert not folder.exists()


def test_only_folders_of_instances_that_have_begun_are_removed(tmp_path: Path):
    (tmp_path / f"{PREFIX}about-to-begin").mkdir()
    (tmp_path / f"{PREFIX}file").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kept").touch()
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "mine")
    other(tmp_path)
    names = ["mine", f"{PREFIX}about-to-begin", f"{PREFIX}file", f"{PREFIX}link"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert (tmp_path / "mine" / "kept").exists()


def test_a_folder_that_is_not_there_is_no_error(tmp_path: Path):
    hold(tmp_path / f"{PREFIX}1")


def test_no_two_instances_have_the_same_folder():
    assert new_folder() != new_folder()
