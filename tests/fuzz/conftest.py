from pathlib import Path

import pytest

from tests.e2e.conftest import Start, start  # noqa: F401  a fixture
from tests.e2e.server import Server
from tests.serving.layered_model import write_layered_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository with a model whose layers can be looked at."""
    root = tmp_path_factory.mktemp("models")
    write_layered_model(root, "mnist-cnn")
    return root


@pytest.fixture(scope="module")
def server(start: Start) -> Server:  # noqa: F811
    return start(MNIST_EXPLAIN="true").wait_ready()
