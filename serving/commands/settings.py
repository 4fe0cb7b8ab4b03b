"""`python -m serving settings`: every setting, its value, default, unit and meaning."""

import argparse
import os
import sys

HEAD = ("Setting", "Value", "Default", "Unit", "Meaning")


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("settings", help="print every setting, its value, default, unit and meaning")
    parser.add_argument("--format", choices=["text", "markdown"], default="text", help="markdown leaves out the values")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the settings of this environment."""
    from serving.settings import read_settings, rows
    from serving.table import format_table

    table = list(rows(read_settings(os.environ)))
    sys.stdout.write(_markdown(table) if arguments.format == "markdown" else format_table(HEAD, table))
    return 0


def _markdown(table: list[tuple[str, str, str, str, str]]) -> str:
    head = f"| {' | '.join(HEAD[:1] + HEAD[2:])} |\n|---|---|---|---|\n"
    return head + "".join(
        f"| `{name}` | `{default}` | {unit} | {meaning} |\n" for name, _, default, unit, meaning in table
    )
