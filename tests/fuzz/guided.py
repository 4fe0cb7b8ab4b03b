"""Coverage-guided fuzzing of one target by atheris: `python -m tests.fuzz.guided TARGET FOLDER [libFuzzer options]`."""

import hashlib
import sys
from pathlib import Path

import atheris

# What reads bytes in Python; the decoders in C are reached through it.
INSTRUMENTED = ["serving", "PIL", "zipfile", "tarfile", "numpy.lib._format_impl", "python_multipart"]

# One that is not instrumented from the beginning never is.
with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz until libFuzzer ends the process; an input that breaks the target lies in FOLDER afterwards."""
    target, folder, options = TARGETS[sys.argv[1]], Path(sys.argv[2]), sys.argv[3:]
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
        except BaseException:
            # libFuzzer writes it only where the process then ends as it expects.
            (folder / f"crash-{hashlib.sha1(data, usedforsecurity=False).hexdigest()}").write_bytes(data)
            raise

    atheris.Setup([sys.argv[0], *fixed, *options, str(corpus)], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
