"""With what a run was trained: the commit of the code, and the releases that decide the weights.

Must not know: networks, recipes.
"""

import subprocess
from importlib.metadata import version
from pathlib import Path

from serving.installation import installed_distributions

ROOT = Path(__file__).parent.parent

# Whose code decides the weights: pictures that are drawn to be learnt from go through the service's preprocessing.
CODE = ("training", "serving")

# Whose releases decide the weights; OpenCV is one of several distributions.
PACKAGES = ("torch", "numpy", "pillow", "matplotlib")
OPENCV = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python")


def packages() -> dict[str, str]:
    """Return name and version of what decides the weights."""
    return {name: version(name) for name in (*PACKAGES, *installed_distributions(OPENCV))}


def code_commit(root: Path = ROOT) -> str:
    """Return the commit of the code.

    Args:
        root: the folder that holds `training/` and `serving/`.

    Returns:
        40 hexadecimal digits, with `-dirty` behind them if files of `training/` or `serving/` differ from it;
        `unknown` if `root` is not the top of a working tree, or there is no git.
    """
    top, commit = _git(root, "rev-parse", "--show-toplevel"), _git(root, "rev-parse", "HEAD")
    if not top or not commit or Path(top).resolve() != root.resolve():
        return "unknown"
    return f"{commit}-dirty" if _git(root, "status", "--porcelain", "--", *CODE) else commit


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
