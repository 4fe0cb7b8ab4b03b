"""Listener: the app on a port of its own, without BentoML's layers.

Must not know: what the app does.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from serving.closing import settle
from serving.http.express import Express
from serving.http.guard import Guard
from serving.http.protection import protect

BACKLOG = 2048


def open_socket(host: str, port: int) -> socket.socket:
    """Return a listening address that several workers may share.

    Raises:
        OSError: the address is taken or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        opened.bind((host, port))
    except OSError:
        opened.close()
        raise
    return opened


def sockets_of(server: uvicorn.Server) -> list[socket.socket]:
    """Return the listening sockets of a server that runs; the caller closes the copies."""
    servers = getattr(server, "servers", ())
    return [socket.socket(fileno=os.dup(each.fileno())) for one in servers for each in one.sockets]


class _Server(uvicorn.Server):
    """A uvicorn that leaves the signals to the process that it is a guest in."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Listener:
    """Serves an app on one port, from within a running event loop.

    Args:
        app: ASGI.
        host: IP address.
        port: TCP port.
        guard: limits the connections, and the wait for running requests when it stops.
        express: answers what is ordinary before the app; None where the app answers all.
    """

    def __init__(self, app: ASGIApp, host: str, port: int, guard: Guard, express: Express | None = None):
        self._guard, self._express = guard, express
        self._app, self._host, self._port = app, host, port
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address is taken or not ours.
        """
        self._socket = open_socket(self._host, self._port)
        config = uvicorn.Config(
            self._app,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
        )
        config.load()
        protect(config, self._guard, self._express)
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve([self._socket]))

    async def stop(self) -> None:
        """Take no more connections, finish the requests that run, then return."""
        if self._server and self._task and self._socket:
            await settle([self._socket])
            self._server.should_exit = True
            await self._task
