"""The folder of a run beside its output: what it holds, and how to tell it from others.

Must not know: how its files are written.
"""

from pathlib import Path

JOB, SOURCES, ROWS, JOURNAL, OUTPUT = "job.json", "sources", "rows.arrows", "journal", "output"


def is_unfinished(folder: Path) -> bool:
    """Return whether there is a run to go on with; a folder that was being removed is none."""
    return all((folder / name).exists() for name in (JOB, SOURCES, ROWS, JOURNAL))
