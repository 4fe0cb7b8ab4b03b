"""The command line of the service: `python -m serving COMMAND`."""

import sys

from serving.cli import build_parser, run


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    return run(build_parser("serving", "Serve, verify and score digit models."), argv)


if __name__ == "__main__":
    sys.exit(main())
