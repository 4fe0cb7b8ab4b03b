"""GrpcServer: the port, within a running event loop; several workers share it.

Must not know: what a call does.
"""

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer

from serving.catalogue import Catalogue
from serving.closing import SETTLE_S
from serving.grpc import health, service
from serving.grpc.calls import Gate
from serving.grpc.core import CoreServer, Limits
from serving.grpc.crowd import make_room
from serving.grpc.service import InferenceService
from serving.grpc.stubs import inference_pb2
from serving.metrics import Metrics
from serving.settings import Settings
from serving.sockets import connections_of, end, listeners_of, refuse
from serving.tls import Certificate

# How often a stopping server looks whether calls are still being answered, and what the last answers take to leave.
LOOK_S = 0.02

# How often it is looked whether there is room for more connections.
ROOM_S = 0.5

# gRPC's own threads, and by how much their priority is lower, as `nice` counts it. Eight connections that begin calls
# and take them back keep two cores busy in them: p99 of HTTP requests was then 6.7 times the quiet one at 0, 3.8 at 5,
# 2.5 at 10. Without an attack, rate, processor time and latency of gRPC calls were the same, also beside HTTP.
THREADS, NICE = ("event_engine", "lifeguard"), 10

# Calls that one connection may have open at once; a client holds back those beyond it. gRPC counts those that are being
# forgotten, too, lest they pile up behind callers who leave at once, and so refuses some of a client's that is at the
# limit: with 256, one in ten of 300 calls in flight was UNAVAILABLE, and most of 1,000. None of 1,000 is with 1,024.
MAX_STREAMS = 1024

# Calls that wait until they are looked at, and as many that send their message, of all connections; each takes 16 KB.
# By itself gRPC cancels some of everybody's from the thousandth on that waits.
MAX_AWAITED = 4 * MAX_STREAMS

# What a connection on which nothing runs may stay; then it is asked to leave. Clients connect again by themselves.
IDLE_MS = 300_000


class GrpcServer:
    """Serves the inference protocol, health and reflection on one port.

    Args:
        inference: answers the calls of the protocol.
        catalogue: knows whether the models are ready.
        metrics: of the whole service.
        settings: address, limits, longest wait for running calls when it stops.
        certificate: for encrypted connections, or None.
    """

    def __init__(
        self,
        inference: InferenceService,
        catalogue: Catalogue,
        metrics: Metrics,
        settings: Settings,
        certificate: Certificate | None = None,
    ):
        self._certificate = certificate
        self._inference, self._catalogue, self._metrics = inference, catalogue, metrics
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self._port, self._max_connections = settings.grpc_port, settings.max_connections
        self._address = f"{host}:{self._port}"
        self._options, self._stop_s = _options(settings), settings.stop_s
        # A call holds at least one image, so that more of them than the queue has room for would be refused anyway.
        # Who watches the health of a server does it once on a connection.
        self._limits = Limits(settings.queue_size, MAX_AWAITED, settings.max_connections, settings.body_timeout_s)
        self._gate = Gate(settings.max_pending_bytes)
        self._health: health.Health | None = None
        self._server: CoreServer | None = None
        self._room: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address is taken or not ours.
        """
        express = self._inference.express(self._metrics, self._gate)
        self._server = CoreServer(self._options, self._limits, express, self._refused)
        self._health = health.Health(self._catalogue, [service.NAME])
        handlers = (self._inference.handler(self._metrics, self._gate), self._health.handler())
        self._server.add_generic_rpc_handlers(handlers)
        if not self._inference.access.restricted:
            _reflect(self._server)
        self._server.add_port(self._address, _credentials(self._certificate) if self._certificate else None)
        self._server.start()
        self._room = asyncio.create_task(self._make_room_forever(self._server))

    async def _make_room_forever(self, server: CoreServer) -> None:
        await asyncio.sleep(ROOM_S)
        _let_others_go_first()
        while True:
            await asyncio.sleep(ROOM_S)
            with contextlib.suppress(OSError):  # no descriptor left; the next look may have one
                make_room(self._port, self._max_connections, server.callers)

    def _refused(self, reason: str) -> None:
        self._metrics.rejected[reason].inc()

    @property
    def busy_since(self) -> float | None:
        """When the thread of gRPC began what it is doing, monotonic; None while it waits."""
        return self._server.busy_since if self._server else None

    async def stop(self) -> None:
        """Take no more calls, finish those that run, then return."""
        if not (self._server and self._health and self._room):
            return
        self._room.cancel()
        self._health.close()
        # Who is sent elsewhere, and has nowhere else, comes back at once; gRPC would cancel what then arrives.
        for descriptor in listeners_of([self._port]).values():
            refuse(descriptor)
        await asyncio.sleep(SETTLE_S)
        self._gate.closed = True
        loop = asyncio.get_running_loop()
        limit = loop.time() + self._stop_s
        busy = 1
        while busy and loop.time() < limit:
            busy = self._gate.inside + (self._server.busy_since is not None)
            await asyncio.sleep(LOOK_S)
        # What has just arrived gRPC would cancel. A connection that closes tells its caller to go to another instance.
        for descriptor in connections_of([self._port]).values():
            end(descriptor)
        await self._server.stop()


def _let_others_go_first() -> None:
    """Lower the priority of gRPC's threads, and so of those that the lifeguard starts when they are all busy."""
    nice = os.getpriority(os.PRIO_PROCESS, 0) + NICE
    for task in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(OSError):  # ended meanwhile
            if (task / "comm").read_text().strip() in THREADS:
                os.setpriority(os.PRIO_PROCESS, int(task.name), nice)


def _credentials(certificate: Certificate) -> grpc.ServerCredentials:
    """Return credentials that ask at each handshake for the certificate that is then in force.

    gRPC gets it only when it is another. It makes its TLS context anew for each that it gets, and where others shake
    hands meanwhile it may free the context under them: with one at each handshake, clients that hung up at once ended
    the process after some ten thousand connections.
    """
    given = certificate.pem

    def latest() -> Any:
        nonlocal given
        if certificate.pem == given:
            return None
        given = certificate.pem
        return grpc.ssl_server_certificate_configuration([given])

    return grpc.dynamic_ssl_server_credentials(grpc.ssl_server_certificate_configuration([given]), latest)


def _options(settings: Settings) -> list[tuple[str, int]]:
    """Return gRPC's channel arguments; what they mean stands in its grpc/impl/channel_arg_names.h."""
    return [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", settings.max_body_bytes),
        ("grpc.max_send_message_length", settings.max_body_bytes),
        ("grpc.max_metadata_size", settings.max_head_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_head_bytes),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.server_handshake_timeout_ms", round(settings.head_timeout_s * 1000)),
        ("grpc.max_connection_idle_ms", IDLE_MS),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.server.max_pending_requests", MAX_AWAITED),
        ("grpc.server.max_pending_requests_hard_limit", MAX_AWAITED),
    ]


def _reflect(server: CoreServer) -> None:
    """Let clients ask which services there are, and for their messages."""
    pool = inference_pb2.DESCRIPTOR.pool
    for known in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
        pool.AddSerializedFile(known.serialized_pb)
    names = (service.NAME, health.NAME, reflection.SERVICE_NAME)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(ReflectionServicer(names, pool), server)
