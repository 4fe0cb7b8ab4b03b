"""What the server and its models say of themselves, as plain objects in the protocol's form.

Must not know: how they travel.
Source: Open Inference Protocol v2, and Triton's extensions for configuration and repository.
"""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from serving.catalogue import Catalogue
from serving.errors import Unsupported
from serving.manifest import MODEL_FILE_NAME, TensorSpec
from serving.predictor import Predictor
from serving.settings import Settings

NAME = "mnist-reader"
PLATFORM, BACKEND = "onnxruntime_onnx", "onnxruntime"
EXTENSIONS = ["binary_tensor_data", "classification", "parameters", "model_configuration", "statistics"]
REPOSITORY_EXTENSION = "model_repository"
DATATYPES = {"uint8": "UINT8", "float32": "FP32"}


def server_version() -> str:
    """Return the version of this distribution, "0" where it is not installed."""
    try:
        return version(NAME)
    except PackageNotFoundError:
        return "0"


def server_metadata(*, may_load: bool) -> dict[str, Any]:
    """Return name, version and extensions of the server.

    Args:
        may_load: whether models can be loaded and unloaded, which the repository extension consists of.
    """
    extensions = [*EXTENSIONS, REPOSITORY_EXTENSION] if may_load else EXTENSIONS
    return {"name": NAME, "version": server_version(), "extensions": extensions}


def model_metadata(predictor: Predictor, versions: list[str]) -> dict[str, Any]:
    """Return a model's versions and tensors; -1 stands for any batch size."""
    manifest = predictor.manifest
    return {
        "name": predictor.name,
        "versions": versions,
        "platform": PLATFORM,
        "inputs": [_tensor(spec) for spec in manifest.inputs],
        "outputs": [_tensor(spec) for spec in manifest.outputs],
        "properties": {
            "version": predictor.version,
            "execution_provider": predictor.provider,
            "sha256": manifest.file.sha256,
            "description": manifest.description,
        },
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    shape = [dimension if isinstance(dimension, int) else -1 for dimension in spec.shape]
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": shape}


def model_config(predictor: Predictor, settings: Settings) -> dict[str, Any]:
    """Return a model's configuration in the form of Triton's ModelConfig."""
    manifest = predictor.manifest
    kind = "KIND_GPU" if predictor.provider == "CUDAExecutionProvider" else "KIND_CPU"
    return {
        "name": predictor.name,
        "platform": PLATFORM,
        "backend": BACKEND,
        "version_policy": {"all": {}},
        "max_batch_size": settings.max_batch_size,
        "input": [_configured(spec) for spec in manifest.inputs],
        "output": [_configured(spec) for spec in manifest.outputs],
        "instance_group": [{"name": predictor.name, "kind": kind, "count": settings.workers}],
        "default_model_filename": MODEL_FILE_NAME,
        "dynamic_batching": {
            "max_queue_delay_microseconds": round(settings.max_delay_ms * 1000),
            "preserve_ordering": True,
        },
    }


def _configured(spec: TensorSpec) -> dict[str, Any]:
    # The configuration leaves the batch dimension out.
    return {"name": spec.name, "data_type": f"TYPE_{DATATYPES[spec.dtype]}", "dims": spec.shape[1:]}


def repository_index(catalogue: Catalogue, *, only_ready: bool) -> list[dict[str, str]]:
    """Return every version that was seen, with its state."""
    return [
        {"name": entry.name, "version": entry.version, "state": entry.state, "reason": entry.reason}
        for entry in catalogue.entries()
        if entry.state == "READY" or not only_ready
    ]


def refuse_overrides(options: Mapping[str, Any]) -> None:
    """Refuse a load that brings a configuration or files of its own: only what is published is served.

    Args:
        options: of the call; Triton's clients put overrides under `parameters`.

    Raises:
        Unsupported: there are such parameters.
    """
    if options.get("parameters"):
        raise Unsupported("a model is loaded as it was published: parameters of a load are not offered")
