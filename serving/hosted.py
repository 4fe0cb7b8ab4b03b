"""A worker within BentoML's process, and which requests are whose.

Must not know: BentoML itself.
"""

import time
from functools import partial
from typing import Any

import numpy as np
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import ConfigurationError
from serving.http.app import assemble
from serving.http.classify import ClassifyEndpoint, describe
from serving.http.pictures import read_pixels
from serving.http.protection import put_before
from serving.settings import Settings
from serving.worker import Worker

# What BentoML's own client asks for, and finds on PORT alone.
CLIENT_PATHS = {"/classify", "/schema.json"}


class Hosted:
    """The worker and its share of BentoML's app.

    Args:
        settings: of the instance.

    Raises:
        ConfigurationError: see `Worker`.
    """

    def __init__(self, settings: Settings):
        self.worker = Worker(settings)

    async def start(self) -> None:
        """Start the worker, with our routes before BentoML's app.

        Raises:
            ConfigurationError: the server of PORT is not known, so nothing would limit what it takes.
        """
        await self.worker.start()
        if self.worker.host is None:
            raise ConfigurationError("this release of BentoML hides its server, so nothing limits what PORT takes")
        put_before(self.worker.host.config, partial(OwnRoutes, worker=self.worker))

    async def classify(self, images: "np.ndarray[Any, Any]") -> dict[str, Any]:
        """Return what POST /classify answers.

        Raises:
            ServingError: what is wrong with the images, or with the model.
        """
        settings, predictor = self.worker.settings, self.worker.catalogue.get()
        pixels = read_pixels(images.tolist(), settings.max_images, only_numbers=False)
        outputs = await predictor.infer(pixels, time.monotonic() + settings.request_timeout_s)
        return describe(predictor, outputs)


class OwnRoutes:
    """Takes requests before BentoML's layers: they cost 350 us of processor time each, the app itself 60 us.

    Args:
        app: BentoML's, which describes its method.
        worker: its app is ours.
    """

    def __init__(self, app: ASGIApp, worker: Worker):
        self._bentoml, self._own = app, worker.app
        classify = ClassifyEndpoint(worker.catalogue, worker.bodies, worker.settings)
        routes = [*classify.routes(), Route("/schema.json", Unnamed(app), methods=["GET"])]
        self._client = assemble(routes, worker.catalogue, worker.access, worker.settings, worker.metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request to whom it belongs."""
        if scope["type"] != "http":
            await self._bentoml(scope, receive, send)
        elif scope["path"] in CLIENT_PATHS:
            await self._client(scope, receive, send)
        else:
            await self._own(scope, receive, send)


class Unnamed:
    """An app whose answers do not name what made them.

    Args:
        app: BentoML's.
    """

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_unnamed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [pair for pair in message["headers"] if b"bentoml" not in b":".join(pair).lower()]
            await send(message)

        await self._app(scope, receive, send_unnamed)
