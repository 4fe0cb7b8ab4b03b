"""The frame of a command line: one module per command, errors as one line on standard error.

Must not know: what a command does.
"""

import argparse
import pkgutil
import sys
from collections.abc import Sequence
from importlib import import_module

from serving.errors import ServingError


def build_parser(package: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of `python -m PACKAGE`, every command registered.

    Args:
        package: the package whose `commands` subpackage holds one module per command. Each has
            `register(subparsers)` and sets `run` to a function that takes the parsed arguments and returns an exit
            code; it imports what is heavy only when it runs.
        description: one line for `--help`.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {package}", description=description)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands = import_module(f"{package}.commands")
    for module in sorted(pkgutil.iter_modules(commands.__path__), key=lambda module: module.name):
        import_module(f"{commands.__name__}.{module.name}").register(subparsers)
    return parser


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names; return 0 done, 1 failed, 2 wrong usage, 130 interrupted, or its own code."""
    arguments = parser.parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except ServingError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
