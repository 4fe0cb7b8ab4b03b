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

    table = [HEAD, *rows(read_settings(os.environ))]
    sys.stdout.write(_markdown(table) if arguments.format == "markdown" else _text(table))
    return 0


def _markdown(table: list[tuple[str, str, str, str, str]]) -> str:
    head, *body = [(name, default, unit, meaning) for name, _, default, unit, meaning in table]
    lines = [" | ".join(head), "|".join(["---"] * len(head))]
    lines += [f"`{name}` | `{default}` | {unit} | {meaning}" for name, default, unit, meaning in body]
    return "".join(f"| {line} |\n" for line in lines)


def _text(table: list[tuple[str, str, str, str, str]]) -> str:
    widths = [max(len(row[column]) for row in table) for column in range(len(HEAD) - 1)]
    lines = (
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in table
    )
    return "".join(f"{line}\n" for line in lines)
