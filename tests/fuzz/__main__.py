"""Coverage-guided fuzzing of every target, one after the other: `python -m tests.fuzz --seconds 60 [TARGET ...]`.

Prints a row of the record for each; exit code 1 if an input broke a target. That input lies in build/fuzz/TARGET/.
"""

import argparse
import datetime
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.targets import TARGETS

FOLDER = Path(__file__).parents[2] / "build" / "fuzz"
FINDINGS = ("crash-*", "timeout-*", "oom-*", "leak-*")


def fuzz(name: str, seconds: int) -> tuple[int, float, list[Path]]:
    """Return how many inputs ran, in how many seconds, and those that broke the target."""
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    command = [sys.executable, "-m", "tests.fuzz.guided", name, str(folder), f"-max_total_time={seconds}"]
    with (folder / "log").open("wb") as log:
        subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
    text = (folder / "log").read_text(encoding="utf-8", errors="replace")
    runs = re.findall(r"^Done (\d+) runs|^#(\d+)\t", text, re.MULTILINE)
    count = max((int(done or running) for done, running in runs), default=0)
    return count, time.monotonic() - started, [path for kind in FINDINGS for path in folder.glob(kind)]


def main() -> int:
    """Fuzz the targets that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    arguments = parser.parse_args()
    found, date = [], datetime.datetime.now(datetime.UTC).date().isoformat()
    for name in arguments.targets or TARGETS:
        count, seconds, findings = fuzz(name, arguments.seconds)
        found += findings if count else [FOLDER / name / "log"]
        print(f"| `{name}` | {count:,} | {seconds:.0f} | {len(findings)} | {date} |", flush=True)
    for path in found:
        print(f"look at {path}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
