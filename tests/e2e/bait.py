"""What a client would have the service touch: a file to make, a file to open, a port to call. Linux."""

import contextlib
import ctypes
import os
import socket
import threading
from pathlib import Path

import numpy as np
from PIL import Image


class Bait:
    """What nobody may touch.

    Attributes:
        marker: a file that is not there, and that the bait makes when it is unpickled.
        picture: a file that is there, a readable picture.
        port: on this machine, where somebody listens, over IPv4 and IPv6.
        calls: connections to the port.
    """

    def __init__(self, folder: Path):
        self.marker, self.picture, self.calls = folder / "marker", folder / "secret.png", 0
        Image.fromarray(np.eye(28, dtype=np.uint8) * 255).save(self.picture)
        self._listening = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        libc = ctypes.CDLL(None)
        self._watch = libc.inotify_init1(os.O_NONBLOCK)
        assert libc.inotify_add_watch(self._watch, bytes(self.picture), 0x20) >= 0  # IN_OPEN, sys/inotify.h

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._listening.accept()
                self.calls += 1  # before the close: whom it tells finds the call counted
                caller.close()

    @property
    def opened(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            return bool(os.read(self._watch, 4096))
        return False

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.marker), "w")

    def untouched(self) -> bool:
        return not self.marker.exists() and not self.opened and self.calls == 0

    def close(self) -> None:
        self._listening.close()
        os.close(self._watch)
