"""Answers every request with the same bytes, as soon as it has its last byte: what the client itself can do at most.

Run: .venv/bin/python benchmarks/canned.py PORT REQUEST_BYTES
"""

import asyncio
import sys
from typing import Any

import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 256\r\n\r\n" + bytes(256)
EMPTY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class Canned(asyncio.Protocol):
    """Counts bytes, parses nothing but the question whether it is there.

    Args:
        size: of one request.
    """

    def __init__(self, size: int):
        self._size, self._got = size, 0
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        """Take the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each whole request."""
        if data.startswith(b"GET "):
            self._transport.write(EMPTY)
            return
        self._got += len(data)
        while self._got >= self._size:
            self._got -= self._size
            self._transport.write(ANSWER)


async def serve(port: int, size: int) -> None:
    """Answer until the process is ended."""
    server = await asyncio.get_running_loop().create_server(lambda: Canned(size), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
