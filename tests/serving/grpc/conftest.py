from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from serving.worker import Worker
from tests.serving.v2_worker import TOKEN, tiny_worker


@pytest.fixture
async def worker(tmp_path: Path, free_port: int) -> AsyncIterator[Worker]:
    """Return a worker that listens for gRPC alone."""
    settings = {"host": "127.0.0.1", "v2_port": 0, "grpc_port": free_port, "max_body_bytes": 1_000_000}
    async with tiny_worker(tmp_path, admin_token=TOKEN, stop_s=30.0, **settings) as made:
        for listener in made._listeners:
            await listener.start()
        yield made


@pytest.fixture
async def channel(worker: Worker) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{worker.settings.grpc_port}") as made:
        yield made
