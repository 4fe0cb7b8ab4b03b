"""The app on a repository with tiny models, and a client of it."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
from prometheus_client import CollectorRegistry
from starlette.routing import Route

from serving.access import Access
from serving.batching import MicroBatcher
from serving.catalogue import Catalogue
from serving.drift import Drift
from serving.http.app import create_app
from serving.http.bodies import BodyReader
from serving.metrics import Metrics
from serving.predictor import Predictor
from serving.preparing import Preparer
from serving.repository import Repository, load
from serving.settings import Settings
from tests.serving.tiny_model import expected_logits, write_tiny_model


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def write_models(root: Path) -> Path:
    for name, version in (("tiny", 1), ("tiny", 2), ("other", 1)):
        write_tiny_model(root, name, version)
    return root


def tiny_digit(image: np.ndarray) -> int:
    """Return what the tiny model says of an image that is passed on unchanged."""
    return int(expected_logits(image[None]).argmax())


class App:
    """The app, its parts, and a client that speaks to it without a network."""

    def __init__(self, root: Path, executor: ThreadPoolExecutor, routes: tuple[Route, ...] = (), **settings: Any):
        self.settings = Settings(models=root, default_model="tiny", **settings)
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.catalogue = Catalogue(Repository(root), self._make, "tiny", self.metrics)
        self.preparer = Preparer(executor, executor, self.settings.max_pixels, self.settings.queue_size)
        bodies, access = BodyReader(self.settings), Access(self.settings)
        self.asgi = create_app(self.catalogue, self.preparer, bodies, access, self.settings, self.metrics, routes)
        transport = httpx.ASGITransport(self.asgi, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://test")

    def _make(self, folder: Path) -> Predictor:
        model = load(folder, "cpu", 1)
        metrics = self.metrics.of_model(model.name, model.version)
        queue_size = self.settings.queue_size
        batcher = MicroBatcher(model.runtime.run, max_batch_size=64, queue_size=queue_size, observer=metrics)
        return Predictor(model, batcher, metrics, Drift(model.manifest.reference, 100))

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"mnist_{name}", labels)

    async def call(self, messages: list[dict[str, Any]], path: str = "/predict", **headers: str) -> tuple[int, Any]:
        """Send the messages of an ASGI server, and return status and content; each message may be cut short."""
        sent: list[dict[str, Any]] = []
        waiting = iter(messages)

        async def receive() -> dict[str, Any]:
            return next(waiting)

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
            "server": ("test", 80),
            "scheme": "http",
            "root_path": "",
            "http_version": "1.1",
        }
        await self.asgi(scope, receive, send)
        if not sent:
            return 0, None
        self.headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], json.loads(b"".join(each.get("body", b"") for each in sent[1:]))
