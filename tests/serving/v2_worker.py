"""A worker on a repository with a tiny model, put together but on no port."""

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import numpy as np
import numpy.typing as npt
from PIL import Image

from serving.batching import Run
from serving.settings import Settings
from serving.warm_up import Pace, warm_up
from serving.worker import Worker
from tests.serving.tiny_model import write_tiny_model

TOKEN = "token of the test"


@asynccontextmanager
async def tiny_worker(root: Path, **settings: Any) -> AsyncIterator[Worker]:
    """Yield a worker that serves version 1 of the model `tiny`, however fast the machine is."""
    write_tiny_model(root)
    worker = Worker(Settings(models=root, default_model="tiny", device="cpu", threads=1, **settings))
    with patch("serving.worker.warm_up", warm_up_evenly):
        await worker.catalogue.start()
        try:
            yield worker
        finally:
            await worker.stop()


def warm_up_evenly(run: Run, max_batch_size: int) -> Pace:
    """Warm up, and find what a fast machine finds: requests do not wait for each other."""
    warm_up(run, max_batch_size)
    return Pace(max_batch_size, True)


def client_of(worker: Worker) -> httpx.AsyncClient:
    """Return a client that speaks to the worker's app without a network."""
    transport = httpx.ASGITransport(worker.app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


def picture(image: npt.NDArray[np.uint8]) -> bytes:
    """Return an image as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
