"""Whether the environment holds what is needed, and one ONNX Runtime.

Must not know: what packages do; none is imported here.
"""

from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from serving.errors import ConfigurationError

# Every distribution that installs the module `onnxruntime`; two of them overwrite each other's files.
DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-qnn")

# By which extras the modules come that some commands do without.
EXTRAS = {
    "onnxruntime": ("cpu", "gpu"),
    "pyarrow": ("offline",),
    "ray": ("ray",),
    **dict.fromkeys(("torch", "torchvision", "onnxscript", "filelock", "matplotlib", "scipy", "tqdm"), ("training",)),
}


def remedy(module: str | None) -> str | None:
    """Say what brings a module that was not found, or nothing where that is not an extra's."""
    extras = " or ".join(f"'mnist-reader[{extra}]'" for extra in EXTRAS.get(module or "", ()))
    return f"{module} is not installed: pip install {extras}" if extras else None


def installed_distributions(names: Collection[str] = DISTRIBUTIONS) -> list[str]:
    """Return those of the distributions that are installed; by default of those that provide `onnxruntime`."""
    found = []
    for name in names:
        try:
            version(name)
        except PackageNotFoundError:
            continue
        found.append(name)
    return found


def check_installation(installed: Collection[str] | None = None) -> None:
    """Refuse no ONNX Runtime, and two in one environment.

    Args:
        installed: names of distributions; those of this environment by default.

    Raises:
        ConfigurationError: none is there, or more than one is installed, so nobody knows whose files are in place.
    """
    if find_spec("onnxruntime") is None:
        raise ConfigurationError(remedy("onnxruntime"))
    clash = installed_distributions() if installed is None else installed
    if len(clash) > 1:
        raise ConfigurationError(
            f"{' and '.join(clash)} are both installed and overwrite each other's files; run "
            f"`pip uninstall -y {' '.join(clash)}`, then install one of the extras `cpu` or `gpu`"
        )
