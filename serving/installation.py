"""Whether the environment holds one ONNX Runtime.

Must not know: what it does; it is not imported here.
"""

from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version

from serving.errors import ConfigurationError

# Every distribution that installs the module `onnxruntime`; two of them overwrite each other's files.
DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-qnn")


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
    """Refuse two ONNX Runtimes in one environment.

    Args:
        installed: names of distributions; those of this environment by default.

    Raises:
        ConfigurationError: more than one is installed, so nobody knows whose files are in place.
    """
    clash = installed_distributions() if installed is None else installed
    if len(clash) > 1:
        raise ConfigurationError(
            f"{' and '.join(clash)} are both installed and overwrite each other's files; run "
            f"`pip uninstall -y {' '.join(clash)}`, then install one of the extras `cpu` or `gpu`"
        )
