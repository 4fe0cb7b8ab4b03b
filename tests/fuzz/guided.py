"""Coverage-guided fuzzing of one target by atheris. To import this module instruments what it includes: ten seconds."""

import hashlib
import subprocess
import sys
from pathlib import Path

import atheris

# What reads bytes in Python; the decoders in C are reached through it.
INSTRUMENTED = ["serving", "PIL", "zipfile", "tarfile", "numpy.lib._format_impl", "python_multipart"]

# One that is not instrumented from the beginning never is.
with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
    from tests.fuzz.targets import TARGETS, TooSlow

# Reads a seed first, for what only the first input costs.
ALONE = """
import sys
from tests.fuzz.targets import TARGETS
target = TARGETS[sys.argv[1]]
target.read(target.seeds()[0])
target.check(sys.stdin.buffer.read())
"""


def is_slow_alone(name: str, data: bytes) -> bool:
    """Return whether an input takes too long without instruments as well, and again: they and neighbours cost time."""
    return subprocess.run([sys.executable, "-c", ALONE, name], input=data, check=False).returncode != 0


def fuzz(name: str, folder: Path, options: list[str]) -> None:
    """Fuzz until libFuzzer ends the process; an input that breaks the target lies in the folder afterwards."""
    target = TARGETS[name]
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    largest = 2 * max(map(len, target.seeds()))
    limits = [f"-max_len={largest}", "-rss_limit_mb=4096", "-timeout=20"]
    fixed = [f"-artifact_prefix={folder}/", "-close_fd_mask=2", *limits]

    def check(data: bytes) -> None:
        try:
            target.check(data)
        except BaseException as error:
            if isinstance(error, TooSlow) and not is_slow_alone(name, data):
                return
            # libFuzzer writes it only where the process then ends as it expects.
            (folder / f"crash-{hashlib.sha1(data, usedforsecurity=False).hexdigest()}").write_bytes(data)
            raise

    atheris.Setup([sys.argv[0], *fixed, *options, str(corpus)], check)
    atheris.Fuzz()
