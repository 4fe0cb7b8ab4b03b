"""Coverage-guided fuzzing of every target, one after the other: `python -m tests.fuzz --seconds 60 [TARGET ...]`.

Prints a row of the record for each; exit code 1 if an input broke a target. That input lies in build/fuzz/TARGET/; what
it broke is printed, and the input with it where it is small.
"""

import argparse
import base64
import datetime
import re
import subprocess
import sys
import time
import zlib
from pathlib import Path

from tests.fuzz.targets import TARGETS

FOLDER = Path(__file__).parents[2] / "build" / "fuzz"
FINDINGS = ("crash-*", "timeout-*", "oom-*", "leak-*")

# Of what is printed of a finding: lines of the fuzzer's last words, characters of the input.
LAST_LINES, SMALL = 20, 4000


def fuzz(name: str, seconds: int) -> tuple[int, float, list[Path]]:
    """Return how many inputs ran, in how many seconds, and what to look at if one of them broke the target."""
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    earlier = _inputs(folder)
    started = time.monotonic()
    command = [sys.executable, "-m", "tests.fuzz.guided", name, str(folder), f"-max_total_time={seconds}"]
    with (folder / "log").open("wb") as log:
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    text = (folder / "log").read_text(encoding="utf-8", errors="replace")
    runs = re.findall(r"^Done (\d+) runs|^#(\d+)\t", text, re.MULTILINE)
    count = max((int(done or running) for done, running in runs), default=0)
    findings = [path for path, written in _inputs(folder).items() if earlier.get(path) != written]
    if not findings and (code or not count):
        findings = [folder / "log"]
    return count, time.monotonic() - started, findings


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
    """Fuzz the targets that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    arguments = parser.parse_args()
    found, date = [], datetime.datetime.now(datetime.UTC).date().isoformat()
    for name in arguments.targets or TARGETS:
        count, seconds, findings = fuzz(name, arguments.seconds)
        found += findings
        print(f"| `{name}` | {count:,} | {seconds:.0f} | {len(findings)} | {date} |", flush=True)
    for path in found:
        print(describe(path))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
