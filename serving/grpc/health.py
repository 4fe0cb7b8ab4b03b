"""grpc.health.v1: the readiness of the models, for the whole server and for the inference service.

Must not know: models.
Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md. The servicer that comes with
grpcio-health-checking forgets its other watchers of a name when one of them leaves.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from serving.catalogue import Catalogue
from serving.grpc.core_call import Context

Request: TypeAlias = health_pb2.HealthCheckRequest
Response: TypeAlias = health_pb2.HealthCheckResponse

NAME = "grpc.health.v1.Health"


def _read(data: bytes) -> Request:
    """Return the message; what is none asks for a service that is not here, since gRPC would log a traceback."""
    try:
        return Request.FromString(data)
    except DecodeError:
        return Request(service="(no message)")


class Health:
    """Answers health checks.

    Args:
        catalogue: knows whether the models are ready, and tells of changes.
        services: names of the services that are checked; "" stands for the server.
    """

    def __init__(self, catalogue: Catalogue, services: Collection[str]):
        self._catalogue, self._services = catalogue, {"", *services}
        self._changed = asyncio.Event()
        self._closed = False
        catalogue.watch(self._tell)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a gRPC server needs."""
        read, write = _read, Response.SerializeToString
        handlers = {
            "Check": grpc.unary_unary_rpc_method_handler(self.check, read, write),
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch, read, write),
        }
        return grpc.method_handlers_generic_handler(NAME, handlers)

    def close(self) -> None:
        """End every watch, so that a stopping server need not wait for those who watch it."""
        self._closed = True
        self._tell()

    def _tell(self) -> None:
        # Whoever waits has this event; the next wait is for a new one.
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _status(self, service: str) -> int:
        if service not in self._services:
            return int(Response.SERVICE_UNKNOWN)
        ready = self._catalogue.ready and not self._closed
        return int(Response.SERVING if ready else Response.NOT_SERVING)

    async def check(self, request: Request, context: Context) -> Response:
        """Answer once; a service that is not here is NOT_FOUND."""
        status = self._status(request.service)
        if status == Response.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service[:80]!r}")
        return Response(status=status)

    async def watch(self, request: Request, _: Context) -> AsyncIterator[Response]:
        """Answer at once, and again at each change."""
        last = None
        while True:
            # As they are now: while an answer is on its way they may change.
            changed, closed = self._changed, self._closed
            status = self._status(request.service)
            if status != last:
                yield Response(status=status)
                last = status
            if closed:
                return
            await changed.wait()
