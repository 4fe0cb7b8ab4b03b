"""Coverage-guided fuzzing of every target, one after the other: `python -m tests.fuzz --seconds 60 [TARGET ...]`.

Prints a row of the record for each; exit code 1 if an input broke a target. That input lies in build/fuzz/TARGET/; what
it broke is printed, and the input with it where it is small.
"""

import argparse
import base64
import ctypes
import datetime
import multiprocessing
import os
import re
import sys
import time
import zlib
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[2] / "build" / "fuzz"
FINDINGS = ("crash-*", "timeout-*", "oom-*", "leak-*")

# Of what is printed of a finding: lines of the fuzzer's last words, characters of the input.
LAST_LINES, SMALL = 20, 4000


def fuzz(guided: ModuleType, name: str, options: list[str]) -> tuple[int, float, list[Path]]:
    """Return how many inputs ran, in how many seconds, and what to look at if one of them broke the target."""
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    earlier = _inputs(folder)
    started = time.monotonic()
    with (folder / "log").open("wb") as log:
        arguments = log.fileno(), guided, name, folder, options
        process = multiprocessing.get_context("fork").Process(target=_fuzz_here, args=arguments)
        process.start()
        process.join()
    text = (folder / "log").read_text(encoding="utf-8", errors="replace")
    runs = re.findall(r"^Done (\d+) runs|^#(\d+)\t", text, re.MULTILINE)
    count = max((int(done or running) for done, running in runs), default=0)
    findings = [path for path, written in _inputs(folder).items() if earlier.get(path) != written]
    if not findings and (process.exitcode or not count):
        findings = [folder / "log"]
    return count, time.monotonic() - started, findings


def _fuzz_here(log: int, guided: ModuleType, name: str, folder: Path, options: list[str]) -> None:
    for stream in (1, 2):
        os.dup2(log, stream)
    # libFuzzer ends the process by exit(), where ONNX Runtime waits for a thread that only the first process has.
    leave = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p)(lambda code, _: os._exit(code))
    ctypes.CDLL(None).on_exit(leave, None)
    guided.fuzz(name, folder, options)


def _inputs(folder: Path) -> dict[Path, int]:
    """Return the inputs that broke a target in this and earlier runs, and when each was written last."""
    return {path: path.stat().st_mtime_ns for kind in FINDINGS for path in folder.glob(kind)}


def describe(finding: Path) -> str:
    """Return where a finding lies, what it broke, and the input itself where it is small."""
    log = (finding.parent / "log").read_text(encoding="utf-8", errors="replace")
    lines = [f"look at {finding}", *log.splitlines()[-LAST_LINES:]]
    if finding.name != "log":
        packed = base64.b64encode(zlib.compress(finding.read_bytes(), 9)).decode()
        if len(packed) <= SMALL:
            lines.append(f"zlib, base64: {packed}")
    return "\n".join(lines)


def main() -> int:
    """Fuzz the targets that are named, or all, each in a process of its own, which has the instruments from here."""
    from tests.fuzz import guided

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(guided.TARGETS)}; all by default")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=0, help="tries the same inputs each time; 0: others each time")
    arguments = parser.parse_args()
    options = [f"-max_total_time={arguments.seconds}", f"-seed={arguments.seed}"]
    found, date = [], datetime.datetime.now(datetime.UTC).date().isoformat()
    for name in arguments.targets or guided.TARGETS:
        count, seconds, findings = fuzz(guided, name, options)
        found += findings
        print(f"| `{name}` | {count:,} | {seconds:.0f} | {len(findings)} | {date} |", flush=True)
    for path in found:
        print(describe(path))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
