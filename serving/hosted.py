"""A worker within BentoML's process: which requests are whose, and what BentoML's typed method answers.

Must not know: BentoML itself.
"""

import time
from functools import partial
from typing import Any

import numpy as np
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.errors import ConfigurationError, InvalidInput, ServingError
from serving.http.app import CORS
from serving.http.checked import CheckedJson
from serving.http.entrance import Entrance
from serving.http.errors import error_response
from serving.http.metering import Metering
from serving.http.protection import put_before
from serving.limits import Limits
from serving.settings import Settings
from serving.worker import Worker

# What BentoML answers itself; everything else is ours.
BENTOML_PATHS = {"/classify", "/schema.json"}


class Hosted:
    """The worker and its share of BentoML's app.

    Args:
        settings: of the instance.

    Raises:
        ConfigurationError: see `Worker`.
    """

    def __init__(self, settings: Settings):
        self.worker = Worker(settings)
        self._timeout_s = settings.request_timeout_s

    async def start(self) -> None:
        """Start the worker, with our routes before BentoML's app.

        Raises:
            ConfigurationError: the server of PORT is not known, so nothing would limit what it takes.
        """
        await self.worker.start()
        if self.worker.host is None:
            raise ConfigurationError("this release of BentoML hides its server, so nothing limits what PORT takes")
        put_before(self.worker.host.config, partial(OwnRoutes, worker=self.worker))

    async def classify(self, images: "np.ndarray[Any, Any]") -> Any:
        """Return the answer of the typed method: digits, confidences, probabilities, or an error's response."""
        try:
            return await self._classify(images)
        except ServingError as error:
            # Raised, BentoML would log its traceback, whoever's fault it is.
            return error_response(error)

    async def _classify(self, images: "np.ndarray[Any, Any]") -> dict[str, Any]:
        predictor = self.worker.catalogue.get()
        outputs = await predictor.infer(check(images), time.monotonic() + self._timeout_s)
        threshold = predictor.manifest.acceptance.min_confidence
        confidences = outputs.probabilities.max(axis=1)
        return {
            "model": {"name": predictor.name, "version": predictor.version},
            "digits": outputs.probabilities.argmax(axis=1).tolist(),
            "confidences": confidences.tolist(),
            "probabilities": outputs.probabilities.tolist(),
            "accepted": (confidences >= threshold).tolist(),
        }


def check(images: "np.ndarray[Any, Any]") -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """Return the images of the typed method as uint8 (N, 28, 28).

    Raises:
        InvalidInput: another shape, no integers, or a value outside 0 to 255.
    """
    if images.shape == (0,):
        # JSON, which BentoML's client sends, cannot say what shape an empty batch has.
        images = np.empty((0, 28, 28), np.uint8)
    if images.ndim == 2:
        images = images[None]
    if images.shape[1:] != (28, 28):
        raise InvalidInput(f"images: expected shape (N, 28, 28) or (28, 28), got {images.shape}")
    if images.dtype.kind not in "iu":
        raise InvalidInput(f"images: expected integers from 0 (paper) to 255 (ink), got {images.dtype}")
    if images.size and not 0 <= images.min() <= images.max() <= 255:
        raise InvalidInput(f"images: expected 0 to 255, got {images.min()} to {images.max()}")
    return np.ascontiguousarray(images, np.uint8)


class OwnRoutes:
    """Takes requests before BentoML's layers: they cost 350 us of processor time each, the app itself 60 us.

    Args:
        app: BentoML's.
        worker: its app is ours.
    """

    def __init__(self, app: ASGIApp, worker: Worker):
        self._bentoml, self._own = app, worker.app
        checked: ASGIApp = CheckedJson(app, worker.bodies, Limits.of(worker.settings), worker.metrics)
        if worker.access.limited:
            checked = Entrance(checked, worker.access, worker.metrics)
        if origins := worker.settings.allowed_origins:
            checked = CORSMiddleware(checked, allow_origins=origins, **CORS)
        self._metered = Metering(checked, worker.catalogue, worker.metrics, worker.settings.access_log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request to whom it belongs."""
        if scope["type"] != "http":
            await self._bentoml(scope, receive, send)
        elif scope["path"] in BENTOML_PATHS:
            await self._metered(scope, receive, send)
        else:
            await self._own(scope, receive, send)
