import asyncio
import socket
import subprocess
import sys
from unittest.mock import Mock

import httpx
import pytest

from serving.closing import stop_connections
from serving.http.guard import LAST_WORD_S, Guard
from serving.http.listener import Listener, open_socket, sockets_of
from tests.serving.http.app import App

ASK = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"


def test_workers_share_a_port_but_strangers_do_not(free_port: int):
    workers = [open_socket("127.0.0.1", free_port) for _ in range(2)]
    with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
        stranger.bind(("127.0.0.1", free_port))
    for worker in workers:
        worker.close()


def test_an_address_that_is_not_ours_is_refused():
    with pytest.raises(OSError, match="assign"):
        open_socket("203.0.113.1", 0)


def test_what_was_shaken_hands_with_is_accepted_after_the_stop_of_new_ones():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(5)
        address = listening.getsockname()
        with socket.create_connection(address, 5) as early:
            early.sendall(b"request")
            stop_connections(listening)
            stop_connections(listening)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address, 5)
            accepted, _ = listening.accept()
            with accepted:
                assert accepted.recv(10) == b"request"
                accepted.sendall(b"answer")
            assert early.recv(10) == b"answer"


# Gives up every capability, as a hardened container does; version and sizes of linux/capability.h.
UNPRIVILEGED = """
import ctypes, socket, struct
from serving.closing import stop_connections
assert ctypes.CDLL(None).capset(struct.pack("Ii", 0x20080522, 0), bytes(24)) == 0
with socket.create_server(("127.0.0.1", 0)) as listening:
    stop_connections(listening)
    try:
        socket.create_connection(listening.getsockname(), 5)
    except ConnectionRefusedError:
        print("refused")
"""


def test_new_connections_are_stopped_without_privileges():
    command = [sys.executable, "-c", UNPRIVILEGED]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "refused\n"


async def until_connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    while True:
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)


async def test_it_listens_answers_and_stops(app: App, free_port: int):
    listener = Listener(app.asgi, "127.0.0.1", free_port, Guard(app.settings, app.metrics))
    await listener.start()
    async with asyncio.timeout(20), httpx.AsyncClient() as client:
        while True:
            try:
                answer = await client.get(f"http://127.0.0.1:{free_port}/livez")
                break
            except httpx.ConnectError:
                await asyncio.sleep(0.01)
        assert answer.json() == {"live": True}
        copies = sockets_of(listener._server)
        assert [copy.getsockname()[1] for copy in copies] == [free_port]
        for copy in copies:
            copy.close()
        await listener.stop()
        with pytest.raises(httpx.TransportError):
            await client.get(f"http://127.0.0.1:{free_port}/livez")


async def test_stopping_what_was_never_started_is_nothing(app: App):
    await Listener(app.asgi, "127.0.0.1", 1, Guard(app.settings, app.metrics)).stop()


async def test_who_may_be_about_to_ask_may_do_so_when_the_listener_has_stopped(app: App, free_port: int):
    listener = Listener(app.asgi, "127.0.0.1", free_port, Guard(app.settings, app.metrics))
    await listener.start()
    async with asyncio.timeout(20):
        asked_before = await until_connected(free_port)
        asked_before[1].write(ASK)
        await asked_before[0].readuntil(b"}")
        newcomer, silent = [await asyncio.open_connection("127.0.0.1", free_port) for _ in range(2)]
        stopping = asyncio.create_task(listener.stop())
        while any(server.is_serving() for server in listener._server.servers):
            await asyncio.sleep(0.01)
        for reads, writes in (asked_before, newcomer):
            writes.write(ASK)
            assert (await reads.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")
        connections = asked_before, newcomer, silent
        assert [await reads.read() for reads, _ in connections] == [b""] * 3
        await stopping
    for _, writes in connections:
        writes.close()


async def test_only_who_was_heard_of_lately_is_waited_for(app: App):
    watch, loop, left = Guard(app.settings, app.metrics), asyncio.get_running_loop(), []
    new, old, unknown = (Mock(loop=loop) for _ in range(3))
    watch.waiting.update({new: loop.time(), old: loop.time() - LAST_WORD_S})
    for each in (new, old, unknown):
        watch.part(each, lambda each=each: left.append(each))
    assert left == [old, unknown]
