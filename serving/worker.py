"""Worker: one process of the service put together: models, app, listeners, and their life from start to stop.

Must not know: BentoML.
"""

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import uvicorn
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from serving import memory, repository
from serving.access import Access
from serving.batching import MicroBatcher
from serving.catalogue import Catalogue
from serving.closing import settle
from serving.drift import Drift
from serving.ending import everyone_ends, let_signals_in
from serving.grpc.server import GrpcServer
from serving.grpc.service import InferenceService
from serving.heartbeat import Heartbeat
from serving.http.app import create_admin_app, create_app
from serving.http.bodies import BodyReader
from serving.http.express import Express, is_allowed
from serving.http.guard import Guard
from serving.http.listener import Listener, sockets_of
from serving.http.protection import protect
from serving.http.unshaken import Unshaken
from serving.http.v2 import V2Endpoints
from serving.metric_files import reserve
from serving.metrics import MULTIPROC_VARIABLE, WRITE_S, Metrics
from serving.predictor import Predictor
from serving.preparing import Preparer
from serving.protocol.inference import Inference
from serving.protocol.statistics import Statistics
from serving.runtime import available_threads
from serving.settings import Settings
from serving.tls import Certificate
from serving.tracing import Traces
from serving.warm_up import warm_up

logger = logging.getLogger(__name__)

# How often what is measured over time is brought up to date.
TICK_S = 0.5

# How long a thread keeps the interpreter while another waits for it. A picture in a thread asks for it eighty times,
# and each time waits so long while the body of somebody else is taken apart; by default it is 5 ms.
SWITCH_S = 0.0001

Handler = Callable[[int, FrameType | None], object] | int | None


class Worker:
    """One worker process.

    Args:
        settings: of the instance.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        # First, since they may fail: a worker that is begun in vain shall leave no files.
        self.access = Access(settings)
        self._certificate = Certificate(settings.tls_cert, settings.tls_key) if settings.tls_cert else None
        self._threads = settings.threads or available_threads(settings.workers)
        self._inference = ThreadPoolExecutor(1, "inference")
        self._pictures = ThreadPoolExecutor(self._threads, "pictures")
        self._large_pictures = ThreadPoolExecutor(1, "large pictures")
        given = os.environ.get(MULTIPROC_VARIABLE)
        folder = self._folder = Path(given) if given else None
        if folder and folder.is_dir() and not reserve(folder):
            del os.environ[MULTIPROC_VARIABLE]
        self.metrics = Metrics(CollectorRegistry(), shared=settings.workers > 1)
        self.metrics.configured_workers.set(settings.workers)
        self._heartbeat = Heartbeat(folder)
        models = repository.Repository(settings.models)
        self.catalogue = Catalogue(models, self._make, settings.default_model, self.metrics, folder)
        self.catalogue.watch(self._show_readiness)
        self.preparer = Preparer(
            self._pictures, self._large_pictures, settings.max_pixels, settings.queue_size, self._threads
        )
        self.inference = Inference(self.preparer.prepare)
        self.statistics = Statistics(self.catalogue, self.metrics)
        self.bodies = BodyReader(settings)
        self._guards: list[Guard] = []
        self._unshaken = Unshaken(settings, self._guards, self.metrics) if settings.tls_cert else None
        self._traces = Traces(os.environ)
        self.app, self.admin_app = self._make_apps()
        self._express = self._make_express()
        self._listeners = self._make_listeners()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self.host: uvicorn.Server | None = None
        """The server of PORT, which this process belongs to; None if it is not known."""
        self._supervisor = os.getppid()
        self._cpu_s = 0.0
        self._memory = memory.Watch()

    def _make(self, folder: Path) -> Predictor:
        """Load, check and warm up the version in a folder."""
        settings = self.settings
        model = repository.load(folder, settings.device, self._threads)
        pace = warm_up(model.runtime.run, settings.max_batch_size)
        logger.info("%s version %s: %s", model.name, model.version, pace.describe())
        metrics = self.metrics.of_model(model.name, model.version)
        batcher = MicroBatcher(
            model.runtime.run,
            max_batch_size=settings.max_batch_size,
            queue_size=settings.queue_size,
            max_delay_s=settings.max_delay_s,
            inline_images=pace.inline_images,
            singly=pace.singly,
            executor=self._inference,
            observer=metrics,
        )
        return Predictor(model, batcher, metrics, Drift(model.manifest.reference, settings.drift_window))

    def _make_apps(self) -> tuple[ASGIApp, ASGIApp | None]:
        """Return the app of every port, and that of the administrators' port if there is one."""
        settings, metrics = self.settings, self.metrics
        v2 = V2Endpoints(self.catalogue, self.inference, self.statistics, self.bodies, self.access, settings)
        admin_app, routes = None, v2.routes()
        if settings.admin_port:
            admin_app = create_admin_app(self.catalogue, self.access, settings, metrics, v2.management())
        else:
            routes += v2.management()
        app = create_app(self.catalogue, self.preparer, self.bodies, self.access, settings, metrics, routes)
        return self._traces.around(app), admin_app

    def _make_express(self) -> Express | None:
        """Return what answers before the app, unless something that is switched on has to see every request there."""
        if self._traces.on or not is_allowed(self.access, self.settings):
            return None
        return Express(self.catalogue, self.preparer, self.settings, self.metrics)

    def _make_listeners(self) -> list[Listener | GrpcServer]:
        settings, traces = self.settings, self._traces
        listeners: list[Listener | GrpcServer] = []
        ports = (settings.v2_port, self.app, self._express), (settings.admin_port, self.admin_app, None)
        for port, app, express in ports:
            if port and app:
                listeners.append(Listener(app, settings.host, port, self._guard(), express))
        if settings.grpc_port:
            service = InferenceService(self.catalogue, self.inference, self.statistics, self.access, settings, traces)
            listeners.append(GrpcServer(service, self.catalogue, self.metrics, settings, self._certificate))
        return listeners

    def _guard(self) -> Guard:
        self._guards.append(
            Guard(self.settings, self.metrics, self._certificate.context if self._certificate else None)
        )
        return self._guards[-1]

    async def start(self) -> None:
        """Listen at once, so that liveness answers; readiness follows when the models are loaded."""
        self._take_signals()
        if self.host:
            protect(self.host.config, self._guard(), self._express)
        for listener in self._listeners:
            await listener.start()
        sys.setswitchinterval(SWITCH_S)
        self._heartbeat.start(time.monotonic())
        work = self._load(), self._tick_forever(), self._beat_forever(), self._write_forever()
        self._tasks |= {asyncio.create_task(each) for each in work}

    async def _load(self) -> None:
        try:
            await self.catalogue.start()
        except Exception:
            logger.exception("the models could not be loaded, so this process is not ready")
            return
        memory.keep_free()
        memory.freeze()
        if self.catalogue.ready:
            logger.info("ready: %s", ", ".join(self.catalogue.names()))

    def _show_readiness(self) -> None:
        self.metrics.workers.set(self.catalogue.ready)

    async def _tick_forever(self) -> None:
        while True:
            if os.getppid() != self._supervisor and self._stopping is None:
                # An orphan would keep its share of the ports, and go on with models that nobody can exchange.
                logger.error("the supervising process is gone, so this one stops, too")
                os.kill(os.getpid(), signal.SIGTERM)
            for done, work in (("measured", self._measure), ("refreshed", self._refresh)):
                try:
                    work()
                except Exception as error:  # such as no descriptor left; the next tick may have one
                    logger.warning("not %s: %s", done, error, exc_info=not isinstance(error, OSError))
            if self.catalogue.started:
                await self._reload(self.catalogue.follow)
            await asyncio.sleep(TICK_S)

    def _refresh(self) -> None:
        self.access.refresh()
        if self._certificate:
            self._certificate.refresh()

    def _measure(self) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.metrics.cpu.inc(used.ru_utime + used.ru_stime - self._cpu_s)
        self._cpu_s = used.ru_utime + used.ru_stime
        self.metrics.tallies.write()
        for predictor in self.catalogue.predictors():
            predictor.update_drift()
        self.metrics.resident_memory.set(self._memory.look())
        if self._unshaken:
            self._unshaken.look(time.monotonic())

    async def _beat_forever(self) -> None:
        """Show that the event loop turns, and since when a run of a model or a decoder has not come back."""
        while True:
            running = [self.preparer.running_since]
            running += [predictor.batcher.running_since for predictor in self.catalogue.predictors()]
            running += [each.busy_since for each in self._listeners if isinstance(each, GrpcServer)]
            self._heartbeat.beat(min((since for since in running if since is not None), default=time.monotonic()))
            await asyncio.sleep(TICK_S)

    async def _write_forever(self) -> None:
        """Write for the other workers what has been noted."""
        while True:
            await asyncio.sleep(WRITE_S / 2)
            self.metrics.tallies.write_rest()

    async def _reload(self, reload: Callable[[], Awaitable[None]]) -> None:
        try:
            await reload()
        except Exception as error:
            logger.error("the models could not be reloaded: %s", error, exc_info=not isinstance(error, OSError))

    def _take_signals(self) -> None:
        """Drain before the signal reaches the server that this process belongs to; reload on SIGHUP."""
        loop = asyncio.get_running_loop()
        host = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
        self.host = host if isinstance(host, uvicorn.Server) else None
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._begin_stop, number, signal.getsignal(number))
        loop.add_signal_handler(signal.SIGHUP, self._begin_reload)
        let_signals_in()

    def _begin_reload(self) -> None:
        logger.info("reloading the models")
        self._tasks.add(reload := asyncio.create_task(self._reload(self.catalogue.reload)))
        reload.add_done_callback(self._tasks.discard)

    def _begin_stop(self, number: int, server: Handler) -> None:
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._drain(number, server))

    async def _drain(self, number: int, server: Handler) -> None:
        logger.info("draining for %g s, then stopping", self.settings.drain_s)
        self.catalogue.drain()
        await asyncio.sleep(self.settings.drain_s)
        self._closing = asyncio.create_task(self._close())
        # The socket of PORT belongs to all workers and the supervisor: what comes while one worker stops alone waits
        # for the others, or for the one that takes its place.
        try:
            if everyone_ends(self._folder) or os.getppid() != self._supervisor:
                with self._shared_sockets() as shared:
                    await settle(shared)
        finally:
            if callable(server):
                server(number, None)

    @contextlib.contextmanager
    def _shared_sockets(self) -> Iterator[list[socket.socket]]:
        shared = sockets_of(self.host) if self.host else []
        yield shared
        for each in shared:
            each.close()

    async def _close(self) -> None:
        await asyncio.gather(*(listener.stop() for listener in self._listeners))

    async def stop(self) -> None:
        """Finish what was accepted, then let go of everything."""
        self.catalogue.drain()
        await (self._closing or self._close())
        for task in self._tasks:
            task.cancel()
        self.metrics.tallies.write()
        self._traces.flush()
        for threads in (self._inference, self._pictures, self._large_pictures):
            threads.shutdown(wait=False, cancel_futures=True)
        logger.info("stopped")
