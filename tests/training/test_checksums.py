import subprocess
from pathlib import Path

from training.checksums import FILE_NAME, checksums, write_checksums

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


def test_what_is_hidden_is_not_listed_and_neither_is_the_list(tmp_path: Path):
    (tmp_path / "net" / ".staging-1").mkdir(parents=True)
    (tmp_path / "net" / ".staging-1" / "model.onnx").touch()
    (tmp_path / "net" / "config.pbtxt").touch()
    write_checksums(tmp_path, 0o644)
    write_checksums(tmp_path, 0o644)
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert (tmp_path / FILE_NAME).read_text(encoding="utf-8") == f"{empty}  net/config.pbtxt\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE_NAME, "net"]
