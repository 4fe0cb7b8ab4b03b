import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from serving.__main__ import main
from serving.offline import journal as journals
from serving.offline.engine import score_locally
from serving.offline.items import Task
from serving.offline.job import partial_folder
from tests.serving.offline.conftest import Score, expected_digits, png_bytes, write_csv
from tests.serving.tiny_model import tiny_graph, tiny_manifest, write_tiny_model

# A run in another process that sends itself a signal at the Nth call of a function; SIGKILL leaves nothing to clean up.
DYING = """
import os, signal, sys
from serving.__main__ import main
from serving.offline import {module} as module
owner, name = (module.zlib, "crc32") if "{function}" == "zlib.crc32" else (module, "{function}")
calls, original = 0, getattr(owner, name)
def dying(*arguments, **options):
    global calls
    calls += 1
    if calls == {calls}:
        os.kill(os.getpid(), signal.{signal})
    return original(*arguments, **options)
setattr(owner, name, dying)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="session")
def rows_text(test_digits, tmp_path_factory: pytest.TempPathFactory) -> str:
    images, labels = test_digits[0][:3000], test_digits[1][:3000]
    lines = write_csv(tmp_path_factory.mktemp("rows") / "rows.csv", images, labels).read_text().splitlines()
    for line in (3, 700, 1500, 2999):
        lines[line] = "1,2,x"
    return "\n".join(lines) + "\n"


@pytest.fixture
def rows(rows_text: str, tmp_path: Path) -> Path:
    """Return a CSV file of 3000 rows, four of which are bad: six tasks."""
    path = tmp_path / "rows.csv"
    path.write_text(rows_text)
    return path


def command(models: Path, *arguments: object) -> list[str]:
    return ["score", *map(str, arguments), "--models", str(models), "--model", "tiny", "--quiet"]


def run_dying(
    models: Path, module: str, function: str, calls: int, *arguments: object, number: signal.Signals = signal.SIGKILL
) -> int:
    code = DYING.format(module=module, function=function, calls=calls, signal=number.name)
    return subprocess.run(
        [sys.executable, "-c", code, *command(models, *arguments)], check=False, timeout=60
    ).returncode


@pytest.mark.parametrize(
    ("module", "function", "calls", "suffix"),
    [
        ("journal", "zlib.crc32", 3, ".csv"),
        ("journal", "zlib.crc32", 3, ".parquet"),
        ("engine", "deque", 1, ".jsonl"),
        ("job", "write_output", 1, ".csv"),
        ("job", "_synchronise", 1, ".csv"),
    ],
)
def test_g02_a_run_killed_at_any_stage_resumes_to_the_same_file(
    models: Path, rows: Path, tmp_path: Path, module: str, function: str, calls: int, suffix: str
):
    whole, killed = tmp_path / f"whole{suffix}", tmp_path / f"killed{suffix}"
    assert main(command(models, rows, "--output", whole)) == 3
    assert run_dying(models, module, function, calls, rows, "--output", killed) == -signal.SIGKILL
    assert killed.exists() == (function == "_synchronise")
    assert main(command(models, rows, "--output", killed, "--resume")) == 3
    assert killed.read_bytes() == whole.read_bytes()


def test_g02_sigterm_ends_a_run_as_ctrl_c_does_since_the_first_process_of_a_container_is_not_ended_by_default(
    models: Path, rows: Path, tmp_path: Path
):
    whole, ended = tmp_path / "whole.csv", tmp_path / "ended.csv"
    assert main(command(models, rows, "--output", whole)) == 3
    assert run_dying(models, "journal", "zlib.crc32", 3, rows, "--output", ended, number=signal.SIGTERM) == 130
    assert not ended.exists()
    assert main(command(models, rows, "--output", ended, "--resume")) == 3
    assert ended.read_bytes() == whole.read_bytes()


def count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
def test_g02_ten_kills_at_random_moments_lose_and_repeat_nothing(models: Path, test_digits, tmp_path: Path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for number, image in enumerate(test_digits[0][:2000]):
        (tree / f"{number:04}.png").write_bytes(png_bytes(image))
    (tree / "1000x.png").write_bytes(b"bad")
    whole, killed = tmp_path / "whole.csv", tmp_path / "killed.csv"
    assert main(command(models, tree, "--output", whole)) == 3
    random = np.random.default_rng(0)
    journal = partial_folder(killed) / journals.JOURNAL
    kept_tasks = [0]
    for more in random.permutation([0, 0, 1, 1, 2, 3, 4, 5, 6, 8]):
        arguments = [sys.executable, "-m", "serving", *command(models, tree, "--output", killed, "--resume")]
        with subprocess.Popen(arguments, stderr=subprocess.PIPE) as process:
            # Of 63 tasks it has scored some more, or has perhaps not begun.
            while process.poll() is None and count_lines(journal) < kept_tasks[-1] + more:
                time.sleep(0.001)
            time.sleep(random.uniform(0, 0.02 if more else 2))
            process.kill()
        if killed.exists():  # the machine let it go on for too long
            break
        kept_tasks.append(count_lines(journal) if journal.exists() else kept_tasks[-1])
    assert kept_tasks == sorted(kept_tasks)
    assert main(command(models, tree, "--output", killed, "--resume")) == 3
    assert killed.read_bytes() == whole.read_bytes()
    assert len(killed.read_text().splitlines()) == 2002


def test_g02_nothing_is_scored_twice(
    score: Score, models: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    output = tmp_path / "scored.parquet"
    assert run_dying(models, "journal", "zlib.crc32", 3, rows, "--output", output) == -signal.SIGKILL
    scored = score(rows, "--resume")
    assert 0 < scored.summary["earlier_rows"] < 3000
    assert scored.summary["rows"] == 3000
    assert scored.summary["errors"] == 4


@pytest.mark.parametrize("cut", [1, 10, 5000])
@pytest.mark.parametrize("name", [journals.ROWS, journals.JOURNAL])
def test_g02_a_log_cut_anywhere_is_repaired(
    score: Score, models: Path, rows: Path, tmp_path: Path, name: str, cut: int
):
    whole = score(rows)
    file = partial_folder(tmp_path / "scored.parquet") / name
    file.write_bytes(file.read_bytes()[: -min(cut, file.stat().st_size)])
    (tmp_path / "scored.parquet").unlink()
    assert score(rows, "--resume").rows == whole.rows


@pytest.mark.parametrize("line", [b"no numbers\n", b"99999999999999 00000000\n", b"1 00000000\n", b"\xff\n"])
def test_g02_what_a_power_cut_leaves_in_the_journal_is_not_believed(
    score: Score, rows: Path, tmp_path: Path, line: bytes
):
    whole = score(rows)
    file = partial_folder(tmp_path / "scored.parquet") / journals.JOURNAL
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:2], line, *lines[3:]]))
    assert score(rows, "--resume").rows == whole.rows


def test_g02_another_model_refuses_to_resume(
    models: Path, rows: Path, tmp_path: Path, score: Score, capsys: pytest.CaptureFixture[str]
):
    score(rows)
    root = tmp_path / "other"
    folder = write_tiny_model(root)
    model = tiny_graph(names=("images", "logits", "probabilities"))
    model.doc_string = "the same weights in another file"
    data = model.SerializeToString()
    (folder / "model.onnx").write_bytes(data)
    tiny_manifest(data).write(folder)
    assert main(command(root, rows, "--output", tmp_path / "scored.parquet", "--resume")) == 1
    assert "model sha256 was" in capsys.readouterr().err


def test_g02_other_options_refuse_to_resume(rows: Path, score: Score):
    score(rows)
    scored = score(rows, "--resume", "--scale", "255")
    assert scored.code == 1
    assert scored.stderr == "error: scale was 'auto' in the unfinished run and is '255' now\n"


def test_g02_changed_inputs_refuse_to_resume(rows: Path, score: Score, tmp_path: Path):
    score(rows)
    assert "had 1 input files, now there are 2" in score(rows, rows, "--resume").stderr
    os.utime(rows, ns=(1, 1))
    assert "input file 1 of 1 has changed" in score(rows, "--resume").stderr


def test_without_resume_a_run_begins_anew(rows: Path, score: Score):
    first = score(rows)
    os.utime(rows, ns=(1, 1))
    second = score(rows)
    assert (second.summary["earlier_rows"], second.rows) == (0, first.rows)


def test_with_nothing_to_resume_a_run_begins(rows: Path, score: Score, tmp_path: Path):
    partial_folder(tmp_path / "scored.parquet").mkdir()
    assert score(rows, "--resume").summary["rows"] == 3000


def test_two_runs_at_once_are_refused(rows: Path, score: Score, tmp_path: Path):
    score(rows)
    folder = partial_folder(tmp_path / "scored.parquet")
    other = journals.Journal(folder)
    for option in ((), ("--resume",)):
        scored = score(rows, *option)
        assert scored.code == 1
        assert "another process is writing" in scored.stderr
    other.close()
    assert score(rows).code == 3


def test_g02_failed_files_are_retried_and_the_others_are_not(score: Score, digits, tmp_path: Path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for number, image in enumerate(digits[0]):
        (tree / f"{number:03}.png").write_bytes(png_bytes(image))
    for number in (0, 41, 42, 99):
        (tree / f"{number:03}.png").write_bytes(b"")
    assert score(tree).summary["errors"] == 4
    for number in (0, 42, 99):
        (tree / f"{number:03}.png").write_bytes(png_bytes(digits[0][number]))
    scored = score(tree, "--retry-failed")
    assert scored.code == 3
    assert scored.errors() == ["empty" if number == 41 else None for number in range(100)]
    expected: list[int | None] = [*expected_digits(digits[0])]
    expected[41] = None
    assert scored.digits() == expected
    assert scored.summary["earlier_rows"] == 96
    (tree / "041.png").write_bytes(png_bytes(digits[0][41]))
    scored = score(tree, "--retry-failed")
    assert scored.code == 0
    assert scored.digits() == expected_digits(digits[0])
    assert not partial_folder(tmp_path / "scored.parquet").exists()
    assert "no run with errors to retry" in score(tree, "--retry-failed").stderr


def test_g02_a_retry_opens_the_engine_once_and_keeps_the_order(
    score: Score, digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tree = tmp_path / "tree"
    tree.mkdir()
    bad = [*range(0, 100, 3), 40, 41]
    for number, image in enumerate(digits[0]):
        (tree / f"{number:03}.png").write_bytes(b"" if number in bad else png_bytes(image))
    write_csv(tree / "050.png", digits[0][:70])
    score(tree)
    for number in bad[:20]:
        (tree / f"{number:03}.png").write_bytes(png_bytes(digits[0][number]))
    write_csv(tree / "060.png", digits[0][:5])
    sizes = list[int]()

    def counted(tasks: Iterable[Task], **options: Any) -> Iterator[pa.RecordBatch]:
        sizes.append(0)
        for batch in score_locally(tasks, **options):
            sizes[-1] += batch.num_rows
            yield batch

    monkeypatch.setattr("serving.offline.engine.score_locally", counted)
    scored = score(tree, "--retry-failed")
    assert sizes == [0, len(set(bad)) + 4]
    assert scored.rows == score(tree, output=tmp_path / "anew.parquet").rows


def test_g02_a_retry_refuses_changes_of_what_was_right(score: Score, digits, tmp_path: Path):
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(png_bytes(digits[0][number]) if number else b"")
    inputs = [tmp_path / "0.png", tmp_path / "1.png"]
    score(*inputs)
    os.utime(inputs[1], ns=(1, 1))
    assert "input file 2 of 2 has changed" in score(*inputs, "--retry-failed").stderr


def test_g02_a_killed_run_is_finished_before_its_failures_are_retried(
    score: Score, models: Path, rows: Path, tmp_path: Path
):
    output = tmp_path / "scored.parquet"
    assert run_dying(models, "journal", "zlib.crc32", 3, rows, "--output", output) == -signal.SIGKILL
    scored = score(rows, "--retry-failed")
    assert (len(scored.rows), scored.summary["errors"]) == (3000, 4)


def test_fail_fast_stops_and_keeps_the_old_output(models: Path, rows: Path, tmp_path: Path):
    output = tmp_path / "scored.parquet"
    output.write_bytes(b"old")
    code = main(command(models, rows, "--output", output, "--fail-fast"))
    assert code == 1
    assert output.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("limit", "code"), [("3", 1), ("4", 3), ("0", 1), ("0.1%", 1), ("0.2%", 3), ("100%", 3), ("0%", 1)]
)
def test_max_errors_stops_at_a_number_or_a_share(score: Score, rows: Path, limit: str, code: int):
    scored = score(rows, "--max-errors", limit)
    assert scored.code == code
    assert ("at most" in scored.stderr) == (code == 1)


@pytest.mark.parametrize("limit", ["-1", "x", "101%", "1.5", "%"])
def test_a_limit_that_is_none_is_refused(score: Score, rows: Path, limit: str):
    scored = score(rows, f"--max-errors={limit}")
    assert scored.code == 1
    assert "expected N or P%" in scored.stderr


@pytest.mark.parametrize("place", ["rows", "output"])
def test_g03_a_full_disk_keeps_the_old_output_and_what_was_scored(
    score: Score, models: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
):
    output = tmp_path / "scored.parquet"
    output.write_bytes(b"old")

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full) if place == "output" else patched.setattr(journals.Journal, "append", full)
        code = main(command(models, rows, "--output", output))
    assert code == 1
    assert output.read_bytes() == b"old"
    assert score(rows, "--resume").summary["rows"] == 3000


def test_g03_a_really_full_disk_is_a_clear_error(models: Path, rows: Path, tmp_path: Path):
    limited = (
        "import resource, signal, sys; from serving.__main__ import main;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "sys.exit(main(sys.argv[1:]))"
    )
    output = tmp_path / "scored.csv"
    output.write_bytes(b"old")
    arguments = [sys.executable, "-c", limited, *command(models, rows, "--output", output)]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr == f"error: cannot write {output}: File too large\n"
    assert output.read_bytes() == b"old"
