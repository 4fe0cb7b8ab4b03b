"""The BentoML service: supervises the workers, listens on PORT, and declares one typed method for BentoML's clients.

Must not know: how models run; that is the worker's part.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import bentoml
import numpy as np
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml.exceptions import BentoMLConfigException

from serving import logs, metric_folder
from serving.descriptors import raise_limit
from serving.errors import ConfigurationError
from serving.settings import Settings, read_settings
from serving.start import check_start
from serving.supervising import adapt_circus

if TYPE_CHECKING:
    from serving.hosted import Hosted


@contextmanager
def _told_to_bentoml() -> Iterator[None]:
    """Raise an error of the configuration as BentoML's own, which it tells in a line."""
    try:
        yield
    except ConfigurationError as error:
        raise BentoMLConfigException(str(error)) from error


def _read_settings() -> Settings:
    with _told_to_bentoml():
        settings = read_settings(os.environ)
    logs.configure(settings.log_format, settings.log_level)
    return settings


settings = _read_settings()


@cache
def hosted() -> "Hosted":
    """Return the worker of this process, made when it is first asked for.

    The supervising process imports this module, too, but none of what a worker needs: 0.4 s and 45 MB.
    """
    from serving.hosted import Hosted

    with _told_to_bentoml():
        return Hosted(settings)


# By default every instance with the same BENTOML_HOME writes to one folder, and wipes it when it starts. This is read
# in the supervising process, which makes the folder, empties it and hands it to the workers.
METRICS_FOLDER = metric_folder.new_folder()
BentoMLContainer.prometheus_multiproc_dir.set(str(METRICS_FOLDER))

adapt_circus(METRICS_FOLDER, settings.watchdog_s)


@bentoml.service(
    name="mnist_reader",
    workers=settings.workers,
    http={"host": settings.host, "port": settings.port},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
)
class MnistReader:
    """Reads handwritten digits."""

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def supervise() -> None:
        """Check, in the supervising process, what would make every worker fail; clear up when it ends."""
        metric_folder.hold(METRICS_FOLDER)
        with _told_to_bentoml():
            check_start(settings)
        raise_limit(settings)

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def start(self) -> None:
        """Start the worker."""
        with _told_to_bentoml():
            await hosted().start()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def stop(self) -> None:
        """Stop the worker."""
        await hosted().worker.stop()

    @bentoml.api(batchable=False)  # type: ignore[untyped-decorator]
    async def classify(self, images: np.ndarray) -> dict[str, Any]:
        """Read digits from pixels.

        Args:
            images: integers from 0 (paper) to 255 (ink), shape (N, 28, 28) or (28, 28).

        Returns:
            digits, confidences, probabilities and whether each is accepted; and the model.
        """
        # For /schema.json, by which BentoML's client finds it, and for callers within the process: over HTTP the same
        # is answered before BentoML's app.
        return await hosted().classify(images)
