"""`models/` on disk: which models and versions there are, and every check before one is served.

Must not know: transports, training.
"""

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serving import onnx_checks
from serving.errors import ModelNotFound, ModelRejected, ServingError, shown
from serving.manifest import FILE_NAME, INPUTS, MODEL_FILE_NAME, OUTPUTS, Manifest, read_manifest
from serving.runtime import Device, OnnxModel

# Largest difference of a golden digit's logit. Two CPUs with other instruction sets differ by about 1e-5;
# a GPU sums in another order, and its convolutions may round to ten bits.
GOLDEN_TOLERANCE = {"CPUExecutionProvider": 1e-3, "CUDAExecutionProvider": 1e-2}

# What ext4 has at the root of every volume; nobody but root may look into it.
LOST_AND_FOUND = "lost+found"


@dataclass(frozen=True)
class LoadedModel:
    """A model version that passed every check."""

    manifest: Manifest
    runtime: OnnxModel
    folder: Path

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """The version as text, as the protocols carry it."""
        return str(self.manifest.version)


class Repository:
    """A folder in the layout of Triton's model repository: `NAME/VERSION/`, versions being whole numbers.

    Args:
        root: the folder. Hidden folders, files, lost+found, and folders that are no version are not looked at.
    """

    def __init__(self, root: Path):
        self.root = root

    def _folders(self) -> list[str]:
        entries = self.root.iterdir() if self.root.is_dir() else ()
        names = (entry.name for entry in entries if entry.is_dir())
        return sorted(name for name in names if name != LOST_AND_FOUND and not name.startswith("."))

    def names(self) -> list[str]:
        """Return the names of the models that have a version, sorted."""
        return [name for name in self._folders() if self.versions(name)]

    def versions(self, name: str) -> list[int]:
        """Return the versions of a model, ascending; none for an unknown name, whatever it holds."""
        if name not in self._folders():
            return []
        with contextlib.suppress(FileNotFoundError):  # it has gone since it was listed
            return sorted(int(entry.name) for entry in (self.root / name).iterdir() if _is_version(entry))
        return []

    def folder(self, name: str, version: int | None = None) -> Path:
        """Return the folder of a version, of the largest one by default.

        Raises:
            ModelNotFound: no such model, or no such version.
            ModelRejected: the folder is a link that leads out of the repository.
        """
        versions = self.versions(name)
        if not versions:
            raise ModelNotFound(f"no model {shown(name)}; there are: {', '.join(self.names()) or 'none'}")
        if version is not None and version not in versions:
            raise ModelNotFound(f"no version {version} of {name}; there are: {', '.join(map(str, versions))}")
        folder = self.root / name / str(versions[-1] if version is None else version)
        if not folder.resolve().is_relative_to(self.root.resolve()):
            raise ModelRejected("place", f"{name}/{folder.name} is a link out of the repository", "a folder inside it")
        return folder


def _is_version(entry: Path) -> bool:
    name = entry.name
    return name.isascii() and name.isdigit() and not name.startswith("0") and entry.is_dir()


def load(folder: Path, device: Device = "auto", threads: int | None = None) -> LoadedModel:
    """Check a model version and make it ready to run.

    The checks, in this order: place of the files, manifest, its name and version, size and SHA-256 of the model, no
    data outside the file, operators of the default domain only, tensors, versions that this runtime reads, golden
    digits. The bytes that were hashed are the bytes that run.

    Args:
        folder: `.../NAME/VERSION`.
        device: see `OnnxModel`.
        threads: see `OnnxModel`.

    Raises:
        ModelRejected: a check failed.
        ConfigurationError: see `OnnxModel`.
    """
    for name in (FILE_NAME, MODEL_FILE_NAME):
        require_file(folder / name)
    manifest = read_manifest(folder)
    _check_identity(folder, manifest)
    model = _read_model(folder, manifest)
    _check_graph(model, manifest)
    runtime = OnnxModel(model, device, threads)
    _check_golden(runtime, manifest)
    return LoadedModel(manifest, runtime, folder)


def require_file(path: Path) -> None:
    """Refuse what is no regular file, before it is read: a link may lead anywhere, a pipe be silent forever.

    Raises:
        ModelRejected: it is none, or is not there.
    """
    if path.is_symlink():
        raise ModelRejected("place", f"{path.name} is a link", "a regular file in the version's folder")
    if not path.is_file():
        raise ModelRejected("place", f"no file {path.name}", "a regular file in the version's folder")


def _check_identity(folder: Path, manifest: Manifest) -> None:
    place = folder.absolute()
    found, expected = f"{manifest.name}/{manifest.version}", f"{place.parent.name}/{place.name}"
    if found != expected:
        raise ModelRejected("name and version", f"{found} in the manifest", f"{expected}, where the files are")
    if manifest.file.name != MODEL_FILE_NAME:
        raise ModelRejected("file name", repr(manifest.file.name), MODEL_FILE_NAME)


def _read_model(folder: Path, manifest: Manifest) -> bytes:
    path = folder / MODEL_FILE_NAME
    size = path.stat().st_size
    if size != manifest.file.size_bytes:
        raise ModelRejected("size", f"{size} bytes", f"{manifest.file.size_bytes} bytes")
    model = path.read_bytes()
    digest = hashlib.sha256(model).hexdigest()
    if digest != manifest.file.sha256:
        raise ModelRejected("SHA-256", digest, manifest.file.sha256)
    return model


def _check_graph(model: bytes, manifest: Manifest) -> None:
    graph = onnx_checks.parse(model)
    if external := onnx_checks.external_tensors(graph):
        raise ModelRejected("external data", ", ".join(external[:3]), "every tensor inside the file")
    if foreign := onnx_checks.foreign_operators(graph):
        raise ModelRejected("operators", ", ".join(foreign[:3]), "operators of ONNX's default domain")
    inputs, outputs = onnx_checks.tensor_specs(graph)
    for check, found, listed, expected in (
        ("inputs", inputs, manifest.inputs, INPUTS),
        ("outputs", outputs, manifest.outputs, OUTPUTS),
    ):
        if found != expected:
            raise ModelRejected(check, onnx_checks.describe(found), onnx_checks.describe(expected))
        if listed != expected:
            raise ModelRejected(
                check, f"{onnx_checks.describe(listed)} in the manifest", onnx_checks.describe(expected)
            )


def _check_golden(runtime: OnnxModel, manifest: Manifest) -> None:
    images = np.stack([digit.image() for digit in manifest.golden])
    expected = np.array([digit.logits for digit in manifest.golden], np.float32)
    tolerance = GOLDEN_TOLERANCE[runtime.provider]
    try:
        difference = float(np.abs(runtime.run(images).logits - expected).max())
    except ServingError as error:
        raise ModelRejected("golden digits", str(error), "logits") from error
    if not difference <= tolerance:
        raise ModelRejected("golden digits", f"logits off by {difference:.3g}", f"at most {tolerance:g}")
