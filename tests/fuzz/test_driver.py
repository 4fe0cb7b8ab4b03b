"""What ends a fuzzer counts, also where it left no input behind."""

import base64
import itertools
import os
import signal
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest

import tests.fuzz as fuzz_package
from tests.fuzz import __main__ as driver


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that lets the next fuzzer end with these last words, exit code and finding."""
    monkeypatch.setattr(driver, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["fuzz", "csv", "--seed", "3"])
    # Three seconds for each run, however long this machine takes to fork.
    monkeypatch.setattr(driver, "time", SimpleNamespace(monotonic=itertools.count(step=3).__next__))

    def end(words: str, code: int, finding: bytes | None = None) -> None:
        def fuzz(name: str, folder: Path, options: list[str]) -> None:
            assert (name, options) == ("csv", ["-max_total_time=60", "-seed=3"])
            os.write(2, words.encode())
            if finding is not None:
                (folder / "crash-1").write_bytes(finding)
            if code < 0:
                os.kill(os.getpid(), -code)
            os._exit(code)

        monkeypatch.setattr(fuzz_package, "guided", SimpleNamespace(TARGETS=["csv"], fuzz=fuzz), raising=False)

    return end


def test_a_run_without_findings_is_good(ends, capsys):
    ends("Done 12345 runs in 5 second(s)\n", 0)
    assert driver.main() == 0
    assert capsys.readouterr().out.startswith("| `csv` | 12,345 | 3 | 0 | 20")


def test_what_broke_is_printed_with_the_input(ends, capsys):
    ends("#7\tNEW\nTooSlow: 1.02 s for 3 bytes\n", 77, b"abc")
    assert driver.main() == 1
    row, where, *words, packed = capsys.readouterr().out.splitlines()
    assert row.startswith("| `csv` | 7 | 3 | 1 | ")
    assert where.endswith("crash-1")
    assert words == ["#7\tNEW", "TooSlow: 1.02 s for 3 bytes"]
    assert zlib.decompress(base64.b64decode(packed.removeprefix("zlib, base64: "))) == b"abc"


@pytest.mark.parametrize(
    ("words", "code"), [("#7\tNEW\nTooSlow\n", 77), ("#7\tNEW\n", -signal.SIGKILL), ("no module\n", 0)]
)
def test_a_fuzzer_that_ends_without_an_input_is_a_finding(ends, capsys, words: str, code: int):
    ends(words, code)
    assert driver.main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith("log")
    assert lines[2:] == words.splitlines()


def test_what_an_earlier_run_left_is_no_finding_until_it_breaks_again(ends, capsys):
    ends("#7\tNEW\n", 77, b"abc")
    driver.main()
    ends("Done 9 runs\n", 0)
    assert driver.main() == 0
    ends("#7\tNEW\n", 77, b"abc")
    assert driver.main() == 1
