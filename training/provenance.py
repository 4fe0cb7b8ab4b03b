"""With what a run was trained: the commit of the code, and the releases that decide the weights.

Must not know: networks, recipes.
"""

import subprocess
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent

# Whose releases decide the weights.
PACKAGES = ("torch", "numpy")


def packages() -> dict[str, str]:
    """Return name and version of what decides the weights."""
    return {name: version(name) for name in PACKAGES}


def code_commit(root: Path = ROOT) -> str:
    """Return the commit of the training code.

    Args:
        root: the folder that holds `training/`.

    Returns:
        40 hexadecimal digits, with `-dirty` behind them if files of `training/` differ from it; `unknown` if `root`
        is not the top of a working tree, or there is no git.
    """
    top, commit = _git(root, "rev-parse", "--show-toplevel"), _git(root, "rev-parse", "HEAD")
    if not top or not commit or Path(top).resolve() != root.resolve():
        return "unknown"
    return f"{commit}-dirty" if _git(root, "status", "--porcelain", "--", "training") else commit


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
