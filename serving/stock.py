"""Stock: the model versions that this process holds, and why it holds no others.

Must not know: transports, orders, how a model is run.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TypeAlias

from serving.errors import ConfigurationError, ModelNotFound, ModelRejected
from serving.manifest import FILE_NAME
from serving.metrics import Metrics
from serving.predictor import Predictor
from serving.repository import Repository, require_file
from serving.trials import Trials

logger = logging.getLogger(__name__)

Key: TypeAlias = tuple[str, int]
Make = Callable[[Path], Predictor]

# Triton's reason.
UNLOADED = "unloaded"


class Stock:
    """The versions that passed their checks, and what is wrong with the others.

    Args:
        repository: the models on disk.
        make: loads, checks and warms up the version in a folder; raises ModelRejected.
        metrics: told what is held.
        changed: called when another version can answer.
        trials: know which versions end whoever loads them.
        default_model: without it nothing is answered, so one of its versions is loaded whatever happened before.

    Attributes:
        held: the versions that can answer.
        absent: why the others cannot.
    """

    def __init__(
        self,
        repository: Repository,
        make: Make,
        metrics: Metrics,
        changed: Callable[[], None],
        trials: Trials,
        default_model: str,
    ):
        self._repository, self._make, self._metrics, self._changed = repository, make, metrics, changed
        self._trials, self._default_model = trials, default_model
        self._digests: dict[Key, str] = {}
        self.held: dict[Key, Predictor] = {}
        self.absent: dict[Key, str] = {}

    def drop(self, name: str) -> None:
        """Let go of every version of a model."""
        self.absent |= {(name, version): UNLOADED for version in self._repository.versions(name)}
        for key in [key for key in self.held if key[0] == name]:
            self._drop(key)
            logger.info("unloaded %s version %d", *key)

    async def refresh(self, name: str, *, starting: bool = False) -> ModelRejected | None:
        """Load the versions of a model that are new or changed; whatever fails a check leaves the old one in place.

        Args:
            name: of the model.
            starting: a device that is not there is a fault of the settings; later it is one of the version.

        Returns:
            What is wrong with the newest version.

        Raises:
            ConfigurationError: while starting, the device that was asked for is not there.
        """
        rejected = None
        for version in self._repository.versions(name):
            rejected = await self._refresh(name, version, starting)
        return rejected

    async def _refresh(self, name: str, version: int, starting: bool) -> ModelRejected | None:
        key = (name, version)
        try:
            folder = self._repository.folder(name, version)
            digest = await asyncio.to_thread(_digest, folder)
            if self._digests.get(key) == digest:
                return None
            predictor = await asyncio.to_thread(self._load, key, folder, digest)
        except ModelNotFound:  # it has gone since it was listed
            return None
        except ModelRejected as error:
            return self._reject(key, error)
        except ConfigurationError as error:
            if starting:
                raise
            return self._reject(key, ModelRejected("device", str(error), "a session on it"))
        except OSError as error:
            return self._reject(key, ModelRejected("files", str(error), "readable files"))
        self._accept(key, digest, predictor)
        return None

    def _load(self, key: Key, folder: Path, digest: str) -> Predictor:
        with nullcontext() if self._is_last_resort(*key) else self._trials.trial(digest):
            return self._make(folder)

    def _is_last_resort(self, name: str, version: int) -> bool:
        if name != self._default_model or any(model == name for model, _ in self.held):
            return False
        return version == self._repository.versions(name)[-1]

    def _reject(self, key: Key, error: ModelRejected) -> ModelRejected:
        self._metrics.loads.labels(key[0], "rejected").inc()
        if key in self.held:
            logger.error("%s version %d stays as it was: %s", *key, error)
        else:
            self.absent[key] = str(error)
            logger.error("%s version %d is not served: %s", *key, error)
        return ModelRejected(f"{key[0]} version {key[1]}: {error.check}", error.found, error.expected)

    def _accept(self, key: Key, digest: str, predictor: Predictor) -> None:
        self.absent.pop(key, None)
        if key in self.held:
            self._drop(key)
        self.held[key], self._digests[key] = predictor, digest
        self._changed()
        self._metrics.loads.labels(key[0], "loaded").inc()
        runtime = predictor.model.runtime
        logger.info("loaded %s version %d on %s: %s", *key, runtime.provider, runtime.reason)

    def _drop(self, key: Key) -> None:
        del self._digests[key]
        predictor = self.held.pop(key)
        self.show(predictor, 0)
        predictor.forget_drift()

    def forget_vanished(self) -> None:
        """Let go of versions whose folders are gone; where no model is left, as without its volume, keep them all."""
        names = self._repository.names()
        there = {(name, version) for name in names for version in self._repository.versions(name)}
        if self.held and not there:
            logger.error("there are no models in %s; what was loaded goes on", self._repository.root.absolute())
            return
        for key in [key for key in self.held if key not in there]:
            self._drop(key)
        for key in [key for key in self.absent if key not in there]:
            del self.absent[key]

    def show(self, predictor: Predictor, value: int) -> None:
        """Have the metrics say whether (1 or 0) a version is served."""
        name, version = predictor.name, predictor.version
        self._metrics.model_info.labels(name, version, predictor.manifest.file.sha256).set(value)
        self._metrics.execution_provider.labels(name, predictor.provider).set(value)


def _digest(folder: Path) -> str:
    require_file(folder / FILE_NAME)
    return hashlib.sha256((folder / FILE_NAME).read_bytes()).hexdigest()
