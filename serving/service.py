"""The BentoML service: supervises the workers, listens on PORT, and offers one typed method for BentoML's clients.

Must not know: how models run; that is the worker's part.
"""

import atexit
import logging
import os
import secrets
import shutil
import tempfile
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast

import bentoml
import numpy as np
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml.exceptions import BentoMLConfigException, BentoMLException
from pydantic import ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from serving import logs
from serving.errors import ConfigurationError, InvalidInput, ServingError
from serving.http.checked import CheckedJson
from serving.http.entrance import Entrance
from serving.http.errors import error_response
from serving.http.metering import Metering
from serving.limits import Limits
from serving.settings import read_settings
from serving.start import check_start
from serving.supervising import adapt_circus
from serving.worker import Worker

# What BentoML answers itself; everything else is ours.
BENTOML_PATHS = {"/classify", "/schema.json"}


def _make_worker() -> Worker:
    try:
        settings = read_settings(os.environ)
        logs.configure(settings.log_format, settings.log_level)
        return Worker(settings)
    except ConfigurationError as error:
        raise BentoMLConfigException(str(error)) from error


worker = _make_worker()
settings = worker.settings

# By default every instance with the same BENTOML_HOME writes to one folder, and wipes it when it starts. This is read
# in the supervising process, which makes the folder, empties it and hands it to the workers.
METRICS_FOLDER = Path(tempfile.gettempdir()) / f"mnist-reader-metrics-{secrets.token_hex(8)}"
BentoMLContainer.prometheus_multiproc_dir.set(str(METRICS_FOLDER))

adapt_circus(METRICS_FOLDER, settings.watchdog_s)


def _is_not_the_clients_fault(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, BentoMLException):
        return error.error_code >= HTTPStatus.INTERNAL_SERVER_ERROR
    return not isinstance(error, ValidationError)


# BentoML logs a traceback for each request that does not fit the schema.
logging.getLogger("bentoml._internal.server.http_app").addFilter(_is_not_the_clients_fault)


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
        self._metered = Metering(checked, worker.catalogue, worker.metrics, worker.settings.access_log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request to whom it belongs."""
        if scope["type"] != "http":
            await self._bentoml(scope, receive, send)
        elif scope["path"] in BENTOML_PATHS:
            await self._metered(scope, receive, send)
        else:
            await self._own(scope, receive, send)


@bentoml.service(
    name="mnist_reader",
    workers=settings.workers,
    http={"host": settings.host, "port": settings.port},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
    traffic={"timeout": settings.request_timeout_s + settings.body_timeout_s},
)
class MnistReader:
    """Reads handwritten digits."""

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def supervise() -> None:
        """Check, in the supervising process, what would make every worker fail; clear up when it ends."""
        atexit.register(shutil.rmtree, METRICS_FOLDER, ignore_errors=True)
        try:
            check_start(settings)
        except ConfigurationError as error:
            raise BentoMLConfigException(str(error)) from error

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def start(self) -> None:
        """Start the worker."""
        await worker.start()
        if not worker.hosted:
            raise BentoMLException("this release of BentoML hides its server, so nothing limits what PORT takes")

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def stop(self) -> None:
        """Stop the worker."""
        await worker.stop()

    @bentoml.api(batchable=False)  # type: ignore[untyped-decorator]
    async def classify(self, images: np.ndarray) -> dict[str, Any]:
        """Read digits from pixels.

        Args:
            images: integers from 0 (paper) to 255 (ink), shape (N, 28, 28) or (28, 28).

        Returns:
            digits, confidences, probabilities and whether each is accepted; and the model.
        """
        try:
            return await _classify(images)
        except ServingError as error:
            # Raised, BentoML would log its traceback, whoever's fault it is.
            return cast(dict[str, Any], error_response(error))


async def _classify(images: "np.ndarray[Any, Any]") -> dict[str, Any]:
    predictor = worker.catalogue.get()
    outputs = await predictor.infer(_check(images), time.monotonic() + settings.request_timeout_s)
    threshold = predictor.manifest.acceptance.min_confidence
    confidences = outputs.probabilities.max(axis=1)
    return {
        "model": {"name": predictor.name, "version": predictor.version},
        "digits": outputs.probabilities.argmax(axis=1).tolist(),
        "confidences": confidences.tolist(),
        "probabilities": outputs.probabilities.tolist(),
        "accepted": (confidences >= threshold).tolist(),
    }


def _check(images: "np.ndarray[Any, Any]") -> "np.ndarray[Any, np.dtype[np.uint8]]":
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


MnistReader.add_asgi_middleware(OwnRoutes, worker=worker)  # type: ignore[attr-defined]
