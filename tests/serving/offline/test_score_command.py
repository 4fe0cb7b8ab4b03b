import json
import os
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from serving.__main__ import main
from tests.serving.offline.conftest import Score, expected_digits, idx_bytes, png_bytes, write_csv
from tests.serving.tiny_model import write_tiny_model


@pytest.fixture
def source(digits, tmp_path: Path) -> Path:
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(idx_bytes(digits[0]))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(digits[1]))
    return path


def test_digits_are_read_the_same_to_the_last_bit_whatever_file_they_come_in(score: Score, digits, tmp_path: Path):
    idx, pictures = tmp_path / "digits.idx", tmp_path / "pictures"
    idx.write_bytes(idx_bytes(digits[0]))
    pictures.mkdir()
    for number, image in enumerate(digits[0]):
        (pictures / f"{number:03}.png").write_bytes(png_bytes(image))
    shares = tmp_path / "shares.csv"
    np.savetxt(shares, digits[0].reshape(100, 784) / 255, "%.17g", ",")
    read = []
    for source in (idx, pictures, write_csv(tmp_path / "digits.csv", digits[0]), shares):
        rows = score(source, "--probabilities").rows
        read.append([[row[f"p{digit}"] for digit in range(10)] for row in rows])
    assert read[0] == read[1] == read[2] == read[3]
    assert len({tuple(row) for row in read[0]}) == 100


def test_help_is_enough_to_use_it(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["score", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for word in (
        "exit codes: 0 all scored",
        "3 finished with errors, 130 interrupted",
        "--resume",
        "IDX",
        "FILE.partial",
        "examples:",
    ):
        assert word in text
    assert "of pictures, IDX, NPY and CSV" in text


def test_the_summary_goes_to_the_terminal_and_to_a_file(models: Path, source: Path, digits, tmp_path: Path, capsys):
    summary, output = tmp_path / "summary.json", tmp_path / "o.csv"
    options = ["--models", str(models), "--model", "tiny/1", "--summary", str(summary), "-o", str(output)]
    assert main(["score", str(source), *options]) == 0
    record = json.loads(summary.read_text())
    accuracy = float(np.mean(np.array(expected_digits(digits[0])) == digits[1]))
    assert record["rows"] == 100
    assert (record["errors"], record["refused"], record["labelled"]) == (0, 0, 100)
    assert record["accuracy"] == accuracy
    # Seconds are rounded to a thousandth, the rate is made from what they were before.
    shortest, longest = record["seconds"] - 0.0006, record["seconds"] + 0.0006
    assert 100 / longest <= record["images_per_second"] <= 100 / max(shortest, 1e-9)
    assert record["model"]["name"] == "tiny"
    assert len(record["model"]["sha256"]) == 64
    said = capsys.readouterr().err
    assert f"100 rows, 0 errors, 0 refused, accuracy {accuracy:.2%} of 100" in said
    assert "images/s with tiny/1" in said


def test_without_labels_there_is_no_accuracy(models: Path, digits, tmp_path: Path, capsys):
    path = tmp_path / "idx"
    path.write_bytes(idx_bytes(digits[0]))
    assert main(["score", str(path), "--models", str(models), "--model", "tiny", "-o", str(tmp_path / "o.csv")]) == 0
    assert "accuracy" not in capsys.readouterr().err


def test_a_low_confidence_is_refused_as_the_service_refuses_it(source: Path, tmp_path: Path):
    write_tiny_model(tmp_path / "strict", acceptance={"min_confidence": 0.3, "chosen_on": "default"})
    output = tmp_path / "o.csv"
    assert (
        main(["score", str(source), "--models", str(tmp_path / "strict"), "--model", "tiny", "-qo", str(output)]) == 0
    )
    lines = [line.split(",") for line in output.read_text().splitlines()[1:]]
    assert {line[5] for line in lines} == {"true", "false"}
    assert all((float(line[4]) >= 0.3) == (line[5] == "true") for line in lines)
    assert {line[6] for line in lines} == {'""', '"low_confidence"'}


@pytest.mark.parametrize(
    ("model", "error"),
    [("none", "no model 'none'"), ("tiny/7", "no version 7 of tiny"), ("tiny/x", "no version 'x' of tiny")],
)
def test_a_model_that_is_not_there_stops_it(models: Path, source: Path, tmp_path: Path, capsys, model: str, error: str):
    arguments = ["score", str(source), "--models", str(models), "--model", model, "-o", str(tmp_path / "o.csv")]
    assert main(arguments) == 1
    assert error in capsys.readouterr().err


@pytest.mark.parametrize("by_option", [True, False])
def test_a_folder_of_models_that_is_not_there_is_named(
    source: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch, by_option: bool
):
    monkeypatch.setenv("MNIST_MODELS", str(tmp_path / "none"))
    options = ["--models", str(tmp_path / "none")] if by_option else []
    assert main(["score", str(source), "-o", str(tmp_path / "o.csv"), *options]) == 1
    assert f"no models: {tmp_path / 'none'} is no folder" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--workers", "0"], ["--scale", "2"], ["--fail-fast", "--max-errors", "3"], []])
def test_wrong_usage_is_exit_code_2(source: Path, options: list[str], capsys):
    with pytest.raises(SystemExit) as ended:
        main(["score", str(source), *options, *(["-o", "x"] if options else [])])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "usage:" in said
    assert ("--workers: expected a whole number from 1 on, got '0'" in said) == ("--workers" in options)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Return a function that puts bytes on standard input."""
    return lambda data: monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(data), "utf-8"))


def test_a_list_of_paths_on_standard_input(score: Score, digits, tmp_path: Path, said: Callable[[bytes], None]):
    names = [b"2.png", "vier \u2028.png".encode(), b"\xff.png"]
    for name, image in zip(names, digits[0], strict=False):
        Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_bytes(png_bytes(image))
    said(b"\xef\xbb\xbf" + b"\n\n".join(bytes(tmp_path) + b"/" + name for name in names) + b"\r\n")
    assert score("-").digits() == expected_digits(digits[0][:3])


def test_a_standard_input_that_cannot_be_read_is_told(score: Score, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert score("-").stderr == "error: -: expected a list of paths on standard input, which is closed\n"
    stream = Mock()
    stream.buffer.read.side_effect = OSError(21, "Is a directory")
    monkeypatch.setattr(sys, "stdin", stream)
    assert score("-").stderr == "error: -: cannot read standard input: Is a directory\n"


@pytest.mark.parametrize(
    ("summary", "error"),
    [
        *[("none/s.json", "expected a file in a folder"), (".", "expected a file in a folder")],
        *[("o.csv", "is the output"), ("o.csv.partial", "is where the run keeps its rows")],
        *[("o.csv.retry", "is where the run keeps its rows"), ("t10k-images-idx3-ubyte", "is an input")],
    ],
)
def test_a_summary_that_cannot_be_is_refused_before_the_work(
    models: Path, source: Path, tmp_path: Path, capsys, summary: str, error: str
):
    options = ["--models", str(models), "--model", "tiny", "--summary", str(tmp_path / summary)]
    assert main(["score", str(source), *options, "-qo", str(tmp_path / "o.csv")]) == 1
    assert error in capsys.readouterr().err
    assert not (tmp_path / "o.csv").exists()


@pytest.mark.parametrize("options", [["--output", "-"], ["--output", "o.csv", "--summary", "-"]])
def test_standard_output_is_not_written(
    models: Path, source: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch, options: list[str]
):
    monkeypatch.chdir(tmp_path)
    assert main(["score", str(source), "--models", str(models), "--model", "tiny", "-q", *options]) == 1
    assert capsys.readouterr().err == f"error: {options[-2]} -: standard output is not written, name a file\n"
    assert not (tmp_path / "-").exists()


def test_an_input_without_a_name_is_refused_where_the_current_folder_was_read(
    score: Score, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(source.parent)
    scored = score(source, "")
    assert scored.code == 1
    assert "an input without a name" in scored.stderr
    assert not (tmp_path / "scored.parquet").exists()


def test_no_input_at_all_is_no_success(score: Score, tmp_path: Path, said: Callable[[bytes], None]):
    said(b"\n")
    scored = score("-")
    assert (scored.code, scored.stderr) == (1, "error: no input: standard input lists no paths\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".hidden").touch()
    scored = score(tmp_path / "empty")
    assert (scored.code, scored.errors()) == (3, ["a folder without files"])


def test_a_summary_that_cannot_be_written_is_told_and_the_output_stays(
    models: Path, source: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    written = Path.write_text

    def full(path: Path, text: str, encoding: str) -> int:
        if path.name == "s.json":
            raise OSError(28, "No space left on device")
        return written(path, text, encoding)

    summary, output = tmp_path / "s.json", tmp_path / "o.csv"
    monkeypatch.setattr(Path, "write_text", full)
    options = ["--models", str(models), "--model", "tiny", "--summary", str(summary), "-qo", str(output)]
    assert main(["score", str(source), *options]) == 1
    assert (
        capsys.readouterr().err == f"error: cannot write {summary}: No space left on device; the output is complete\n"
    )
    assert len(output.read_text().splitlines()) == 101


def test_without_pyarrow_it_says_what_to_install(tmp_path: Path):
    code = (
        "import sys; sys.modules['pyarrow'] = None; from serving.__main__ import main;"
        "sys.exit(main(['score', 'x', '-o', 'y']))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    line = "error: pyarrow is not installed: pip install 'mnist-reader[offline]'\n"
    assert (ended.returncode, ended.stderr) == (1, line)


def test_it_imports_no_torch_no_web_server_and_no_pandas(models: Path, source: Path, tmp_path: Path):
    code = (
        "import sys; from serving.__main__ import main; code = main(sys.argv[1:]);"
        "print(sorted({'torch', 'pandas', 'bentoml', 'starlette', 'cv2', 'PIL'} & sys.modules.keys())); sys.exit(code)"
    )
    arguments = ["score", str(source), "--models", str(models), "--model", "tiny", "-qo"]
    for output in ("o.parquet", "o.csv", "o.jsonl"):
        command = [sys.executable, "-c", code, *arguments, str(tmp_path / output)]
        ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert ended.stdout == "[]\n"


@pytest.mark.parametrize("stderr", ["2>/dev/full", "2>&-"])
def test_where_nothing_can_be_said_the_run_goes_on_all_the_same(stderr: str, models: Path, digits, tmp_path: Path):
    write_csv(tmp_path / "a.csv", digits[0])
    options = f"--models {models} --model tiny --output {tmp_path / 'out.csv'}"
    command = f"{sys.executable} -m serving score {tmp_path / 'a.csv'} {options} {stderr}"
    assert subprocess.run(["sh", "-c", command], timeout=60).returncode == 0
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 101
