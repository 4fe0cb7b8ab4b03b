from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.server import Server
from tests.serving.tiny_model import write_tiny_model

Start = Callable[..., Server]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave these tests out of the coverage: they test other processes, and to trace the client doubles its time."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("no_cover")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository with a tiny mnist-cnn that a test may change."""
    root = tmp_path_factory.mktemp("models")
    write_tiny_model(root, "mnist-cnn", 1)
    write_tiny_model(root, "other", 1)
    return root


@pytest.fixture(scope="module")
def start(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Return a function that starts a server; each is ended with the module."""
    servers: list[Server] = []

    def start_one(*command: str, **environ: str) -> Server:
        environ = {"MNIST_DEFAULT_MODEL": "mnist-cnn"} | environ
        servers.append(Server(tmp_path_factory.mktemp("server"), models, *command, **environ))
        return servers[-1]

    yield start_one
    for server in servers:
        server.kill()
