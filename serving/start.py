"""What is checked once before the workers start: whatever would make every one of them fail, again and again.

Must not know: how a worker is built.
"""

import os
import socket
import tempfile
from pathlib import Path

from serving.access import Access
from serving.errors import ConfigurationError, ModelNotFound, ModelRejected
from serving.installation import check_installation
from serving.settings import Settings
from serving.tls import Certificate
from serving.tracing import check_exporter


def check_start(settings: Settings) -> None:
    """Check the installation, the exporter of traces, the files of tokens and certificates, the ports and the device.

    Raises:
        ConfigurationError: says what is wrong and what was expected.
    """
    check_installation()
    check_exporter(os.environ)
    Access(settings)
    if settings.tls_cert:
        Certificate(settings.tls_cert, settings.tls_key)
    ports = {"V2_PORT": settings.v2_port, "GRPC_PORT": settings.grpc_port, "MNIST_ADMIN_PORT": settings.admin_port}
    for name, port in ports.items():
        if port:
            check_port(name, settings.host, port)
    if settings.device == "cuda":
        _check_device(settings)


def check_models(folder: Path) -> None:
    """Refuse to start where the models would be looked for in vain; which of them are served is the workers' affair.

    Raises:
        ConfigurationError: names the setting and the folder.
    """
    if not folder.is_dir():
        found = "this is none" if folder.exists() else "there is nothing"
        raise ConfigurationError(f"MNIST_MODELS={folder}: expected a folder of models; {found}")


def check_temporary_folder() -> None:
    """Refuse to start where no temporary file can be made: metrics and heartbeats are such.

    Raises:
        ConfigurationError: says where it was tried.
    """
    try:
        tempfile.gettempdir()
    except OSError as error:
        raise ConfigurationError(f"TMPDIR: expected a folder that can be written to: {error.strerror}") from error


def check_port(name: str, host: str, port: int) -> None:
    """Refuse a port that somebody listens on: workers share theirs, so a stranger would take part of the requests.

    Raises:
        ConfigurationError: names the setting, the port and the reason.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError(f"{name}={port}: cannot listen on {host}: {error.strerror}") from error


def _check_device(settings: Settings) -> None:
    """Refuse to start where the default model does not run on the device that was asked for."""
    # Only here: it brings ONNX Runtime into the supervising process.
    from serving import repository

    try:
        folder = repository.Repository(settings.models).folder(settings.default_model)
        repository.load(folder, settings.device, 1)
    except (ModelNotFound, ModelRejected):
        # The workers say so, and are not ready.
        return
