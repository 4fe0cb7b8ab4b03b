"""Catalogue: the model versions that this process serves, and how they are exchanged while it runs.

Must not know: transports, how a model is run.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serving.errors import ModelNotFound, NotReady, shown
from serving.metrics import Metrics
from serving.orders import Orders
from serving.predictor import Predictor
from serving.repository import Repository
from serving.stock import UNLOADED, Key, Make, Stock
from serving.trials import Trials

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """A version in the repository: whether it is served, and if not, why."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str = ""


class Catalogue:
    """The loaded models.

    A version that fails its checks is not served; the log says why, and the others go on. A new version answers from
    the moment it has passed its checks and is warm; a request runs on one version from beginning to end.

    Args:
        repository: the models on disk.
        make: loads, checks and warms up the version in a folder; raises ModelRejected.
        default_model: answers where no model is named.
        metrics: told what is served.
        shared: the private folder of the instance, in which its workers tell each other what an administrator asked
            for and which versions end whoever loads them; None for a lone process without one.
    """

    def __init__(
        self,
        repository: Repository,
        make: Make,
        default_model: str,
        metrics: Metrics,
        shared: Path | None = None,
    ):
        self.repository, self.default_model = repository, default_model
        self._stock = Stock(repository, make, metrics, self._change, Trials(shared), default_model)
        self.orders = Orders(shared)
        self._unloaded: set[str] = set()
        self._table: dict[tuple[str | None, str | None], Predictor] = {}
        self._exchange = asyncio.Lock()
        self._orders_at_work: set[asyncio.Task[None]] = set()
        self._watchers: list[Callable[[], None]] = []
        self._started = self._draining = False

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here: everything is loaded, the default model runs, and no stop has begun."""
        return self._started and not self._draining and (None, None) in self._table

    @property
    def started(self) -> bool:
        """Whether everything was loaded, or found to be bad."""
        return self._started

    @property
    def draining(self) -> bool:
        """Whether the process is about to stop."""
        return self._draining

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` after each change of what is ready, on the event loop."""
        self._watchers.append(changed)

    def drain(self) -> None:
        """Fail readiness; requests are still answered."""
        self._draining = True
        self._tell()

    def get(self, name: str | None = None, version: str | None = None) -> Predictor:
        """Return a version that is served: by default the largest of the default model.

        Raises:
            ModelNotFound: no such model or version.
            NotReady: it is there but is not served.
        """
        predictor = self._table.get((name or None, version or None))
        if predictor is None:
            raise self._why_not(name or self.default_model, version or None)
        return predictor

    def _why_not(self, name: str, version: str | None) -> ModelNotFound | NotReady:
        if not self._started:
            return NotReady("the models are being loaded")
        known = [entry for entry in self.entries() if entry.name == name]
        meant = [entry for entry in known if version in (None, entry.version)]
        if meant and meant[-1].reason == UNLOADED:
            return NotReady(f"model {name} was unloaded")
        if meant:
            return NotReady(f"model {name} version {meant[-1].version} is not served: it failed a check")
        if known:
            there = ", ".join(entry.version for entry in known)
            return ModelNotFound(f"no version {shown(version)} of {name}; there are: {there}")
        return ModelNotFound(f"no model {shown(name)}; there are: {', '.join(self.names()) or 'none'}")

    def names(self) -> list[str]:
        """Return the names of the models that are served, sorted."""
        return sorted({name for name, _ in self._table if name})

    def versions(self, name: str) -> list[str]:
        """Return the versions of a model that are served, ascending."""
        return [version for model, version in self._table if model == name and version]

    def predictors(self) -> list[Predictor]:
        """Return every version that is served."""
        return [predictor for (name, version), predictor in self._table.items() if name and version]

    def entries(self) -> list[Entry]:
        """Return every version that was seen, by name and version."""
        served = {(name, int(version)) for name, version in self._table if name and version}
        absent = self._stock.absent
        return [
            Entry(*_texts(key), "READY") if key in served else Entry(*_texts(key), "UNAVAILABLE", absent[key])
            for key in sorted(served | absent.keys())
        ]

    async def start(self) -> None:
        """Load every version of every model; readiness may follow.

        Raises:
            ConfigurationError: the device that was asked for is not there.
        """
        await self.reload()
        self._started = True
        if (None, None) not in self._table:
            logger.error(
                "the default model %s is not served, so this process is not ready; models in %s: %s",
                self.default_model,
                self.repository.root.absolute(),
                ", ".join(self.repository.names()) or "none",
            )
        self._tell()

    async def reload(self) -> None:
        """Bring what is served in line with the repository; whatever fails a check leaves the old one in place."""
        async with self._exchange:
            self._obey()
            await self._refresh_all()

    async def follow(self) -> None:
        """Do what an administrator has asked of another worker, if anything."""
        if self.orders.pending:
            async with self._exchange:
                await self._catch_up()

    async def load(self, name: str) -> None:
        """Load the versions of one model that are new or changed.

        Raises:
            ModelNotFound: the repository has no such model.
            ModelRejected: its newest version failed a check; what was served before goes on.
        """
        await self._to_the_end(self._load(name))

    async def _load(self, name: str) -> None:
        async with self._exchange:
            await self._catch_up()
            self.repository.folder(name)
            rejected = await self._stock.refresh(name)
            self._unloaded.discard(name)
            self._stock.forget_vanished()
            self._publish()
            await asyncio.to_thread(self.orders.give, name, unloaded=False)
            if rejected:
                raise rejected

    async def unload(self, name: str) -> None:
        """Serve a model no longer; requests that run are finished.

        Raises:
            ModelNotFound: no such model is served.
        """
        await self._to_the_end(self._unload(name))

    async def _unload(self, name: str) -> None:
        async with self._exchange:
            await self._catch_up()
            if not self.versions(name):
                raise ModelNotFound(f"model {shown(name)} is not served")
            await asyncio.to_thread(self.orders.give, name, unloaded=True)
            self._unloaded.add(name)
            self._stock.drop(name)
            self._publish()

    async def _to_the_end(self, order: Coroutine[None, None, None]) -> None:
        """Carry out an order wholly, also one whose caller leaves: half of it would hold on this worker alone."""
        task = asyncio.create_task(order)
        self._orders_at_work.add(task)
        task.add_done_callback(self._orders_at_work.discard)
        await asyncio.shield(task)

    async def _catch_up(self) -> None:
        """Do what was ordered before: whoever gives the next order knows it to be done."""
        if self._obey():
            await self._refresh_all()

    def _obey(self) -> bool:
        """Take the orders of other workers, and unload what they say; return whether there were any."""
        unloaded = self.orders.take()
        if unloaded is None:
            return False
        self._unloaded = unloaded
        for name in unloaded:
            self._stock.drop(name)
        self._change()
        return True

    async def _refresh_all(self) -> None:
        for name in self.repository.names():
            if name in self._unloaded:
                self._stock.drop(name)
            else:
                await self._stock.refresh(name, starting=not self._started)
        self._stock.forget_vanished()
        self._publish()

    def _change(self) -> None:
        """Publish, except at the start: nothing answers, an older version least of all, before everything is loaded."""
        if self._started:
            self._publish()

    def _publish(self) -> None:
        """Exchange, in one step, the table of what is served; every question is answered from it."""
        table: dict[tuple[str | None, str | None], Predictor] = {}
        for (name, version), predictor in sorted(self._stock.held.items(), key=lambda item: item[0]):
            table[name, str(version)] = table[name, None] = predictor
            if name == self.default_model:
                table[None, str(version)] = table[None, None] = predictor
        if table == self._table:
            return
        self._table = table
        for predictor in self.predictors():
            self._stock.show(predictor, 1)
        self._tell()

    def _tell(self) -> None:
        for changed in self._watchers:
            changed()


def _texts(key: Key) -> tuple[str, str]:
    return key[0], str(key[1])
