"""The frame of a command line: one module per command, errors as one line on standard error.

Must not know: what a command does.
"""

import argparse
import os
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
    code = _outcome(parser.parse_args(argv))
    try:
        if sys.stdout is not None:  # as with >&-
            sys.stdout.flush()
    except OSError as error:
        # The interpreter would write the rest at its end, in vain again and with a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or _refused(error)
    return code


def _outcome(arguments: argparse.Namespace) -> int:
    try:
        return int(arguments.run(arguments))
    except ServingError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except ModuleNotFoundError as error:
        from serving.installation import remedy  # what it reads distributions with takes longer than all of this module

        if not (text := remedy(error.name)):
            raise
        sys.stderr.write(f"error: {text}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except OSError as error:
        return _refused(error)


def _refused(error: OSError) -> int:
    """Say what the system refused, but nothing of a reader that has read enough, such as `head`; return 1."""
    if not isinstance(error, BrokenPipeError):
        names = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
        reason = error.strerror or str(error) or type(error).__name__
        sys.stderr.write(f"error: {names}: {reason}\n" if names else f"error: {reason}\n")
    return 1
