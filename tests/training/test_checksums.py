import errno
import os
import subprocess
from pathlib import Path

import pytest

from training.checksums import FILE_NAME, checksums, draft_checksums, is_complete, write_checksums

MODELS = Path(__file__).parents[2] / "models"


def verify(folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["sha256sum", "--strict", "--quiet", "-c", FILE_NAME]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_list_of_the_published_models_is_that_of_their_files():
    assert (MODELS / FILE_NAME).read_text(encoding="utf-8") == checksums(MODELS)


def test_sha256sum_reads_the_list_and_notices_a_changed_file(tmp_path: Path):
    (tmp_path / "net" / "1").mkdir(parents=True)
    (tmp_path / "net" / "1" / "model.onnx").write_bytes(b"weights")
    (tmp_path / "net" / "config.pbtxt").touch()
    write_checksums(tmp_path, 0o644)
    assert verify(tmp_path).returncode == 0
    (tmp_path / "net" / "1" / "model.onnx").write_bytes(b"weightz")
    assert "net/1/model.onnx: FAILED" in verify(tmp_path).stdout


def test_a_new_list_vouches_for_no_file_that_was_damaged_since_it_was_listed(tmp_path: Path):
    for name in ("damaged", "gone", "replaced"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    write_checksums(tmp_path, 0o644)
    (tmp_path / "damaged").write_text("damagee", encoding="utf-8")
    (tmp_path / "gone").unlink()
    (tmp_path / "unlisted").touch()
    (tmp_path / ".coming").touch()
    draft = draft_checksums(tmp_path, 0o644, {tmp_path / "replaced": tmp_path / ".coming"})
    (tmp_path / ".coming").replace(tmp_path / "replaced")
    draft.replace(tmp_path / FILE_NAME)
    assert verify(tmp_path).stdout == "damaged: FAILED\n"
    assert [line.split()[1] for line in (tmp_path / FILE_NAME).read_text(encoding="utf-8").splitlines()] == [
        "damaged",
        "replaced",
        "unlisted",
    ]


def test_a_damaged_line_of_the_list_stays_for_sha256sum_to_see(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).touch()
    write_checksums(tmp_path, 0o644)
    content = (tmp_path / FILE_NAME).read_bytes()
    (tmp_path / FILE_NAME).write_bytes(b"\xff" + content[1:])
    write_checksums(tmp_path, 0o644)
    assert "1 line is improperly formatted" in verify(tmp_path).stderr


def test_what_is_hidden_is_not_listed_and_neither_is_the_list(tmp_path: Path):
    (tmp_path / "net" / ".staging-1").mkdir(parents=True)
    (tmp_path / "net" / ".staging-1" / "model.onnx").touch()
    (tmp_path / "net" / "config.pbtxt").touch()
    write_checksums(tmp_path, 0o644)
    write_checksums(tmp_path, 0o644)
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert (tmp_path / FILE_NAME).read_text(encoding="utf-8") == f"{empty}  net/config.pbtxt\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE_NAME, "net"]


def test_the_list_of_what_is_to_come_is_that_of_what_has_come(tmp_path: Path):
    (tmp_path / "net" / ".staging").mkdir(parents=True)
    for name in ("config.pbtxt", ".staging/new.pbtxt", ".staging/model.onnx"):
        (tmp_path / "net" / name).write_text(name, encoding="utf-8")
    staged, place = tmp_path / "net" / ".staging" / "model.onnx", tmp_path / "net" / "1" / "model.onnx"
    config, new_config = tmp_path / "net" / "config.pbtxt", tmp_path / "net" / ".staging" / "new.pbtxt"
    draft = draft_checksums(tmp_path, 0o644, {place: staged, config: new_config})
    place.parent.mkdir()
    staged.rename(place)
    new_config.replace(config)
    assert draft.read_text(encoding="utf-8") == checksums(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [draft.name]


def test_a_list_that_finds_no_room_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_checksums(tmp_path, 0o644)
    (tmp_path / "new").touch()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_checksums(tmp_path, 0o644)
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE_NAME, "new"]
    assert (tmp_path / FILE_NAME).read_text(encoding="utf-8") == ""


def test_a_list_is_complete_when_it_names_every_file(tmp_path: Path):
    (tmp_path / "a file").touch()
    assert not is_complete(tmp_path)
    write_checksums(tmp_path, 0o644)
    (tmp_path / ".hidden").touch()
    assert is_complete(tmp_path)
    (tmp_path / "b").touch()
    assert not is_complete(tmp_path)
