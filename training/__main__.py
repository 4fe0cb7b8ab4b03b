"""The command line of training: `python -m training COMMAND`."""

import sys

from serving.cli import build_parser, run


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    return run(build_parser("training", "Train, explain, check, export and publish MNIST networks."), argv)


if __name__ == "__main__":
    sys.exit(main())
