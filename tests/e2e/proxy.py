"""A network that delays, goes silent or resets: a TCP proxy in threads of the test."""

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass


@dataclass
class Proxy:
    """Stands between a client and a port of this machine.

    Attributes:
        port: of the service.
        chunk_bytes: at most this much travels at once.
        delay_s: before each chunk, in both directions.
        reset_after: bytes of a request after which both sides are reset; None = never.
        silent_after: bytes of a request after which nothing travels any more; None = never.
    """

    port: int
    chunk_bytes: int = 65_536
    delay_s: float = 0.0
    reset_after: int | None = None
    silent_after: int | None = None

    def __enter__(self) -> "Proxy":
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listening]
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.url = f"http://{self.address}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self.port))
                self._open += [client, server]
                threading.Thread(target=self._forward, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._forward, args=(server, client, False), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, is_request: bool) -> None:
        limits = [limit for limit in (self.reset_after, self.silent_after) if limit is not None and is_request]
        left = min(limits, default=1 << 60)
        with contextlib.suppress(OSError):
            while left and (data := source.recv(min(self.chunk_bytes, left))):
                left -= len(data)
                time.sleep(self.delay_s)
                sink.sendall(data)
            if left:
                sink.shutdown(socket.SHUT_WR)
            elif self.reset_after is not None:
                _reset(source)
                _reset(sink)


def _reset(connection: socket.socket) -> None:
    # The other thread still reads from it, so that closing alone would not take effect.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.shutdown(socket.SHUT_RD)
    connection.close()
