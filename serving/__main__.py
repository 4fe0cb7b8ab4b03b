"""The command line of the service: `python -m serving COMMAND`."""

import os
import sys

from serving.cli import build_parser, run

# NumPy and OpenCV each bring an OpenBLAS, which starts a thread for each processor of the machine, of which a container
# may have few. On one of 64 a worker had 155 threads, so that two of them did not fit into `--pids-limit 256`.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    return run(build_parser("serving", "Serve, verify and score digit models."), argv)


if __name__ == "__main__":
    sys.exit(main())
