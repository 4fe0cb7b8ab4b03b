"""`fetch-data`: put MNIST's four files into a folder, verified."""

import argparse
import sys
from pathlib import Path


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("fetch-data", help="fetch MNIST and verify it byte for byte")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder for the four files (default: data)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Fetch what is missing or wrong; return 0."""
    from training.mnist import SHA256, fetch

    fetched = fetch(arguments.data)
    done = f"fetched {', '.join(fetched)}" if fetched else "nothing to fetch"
    sys.stdout.write(f"{arguments.data}: {done}; {len(SHA256)} files, verified by SHA-256\n")
    return 0
