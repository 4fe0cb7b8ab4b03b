from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.serving.http.app import App, write_models


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository with tiny versions 1 and 2 and other version 1."""
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
async def app(models: Path, executor: ThreadPoolExecutor) -> AsyncIterator[App]:
    """Return the app with its models loaded."""
    made = App(models, executor)
    await made.catalogue.start()
    async with made.client:
        yield made
