"""The connections of this process, as the system (Linux) shows them.

Must not know: what is spoken on them.
"""

import contextlib
import os
import socket
import stat
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from serving.closing import stop_connections

# `tcpi_last_data_recv` in the kernel's tcp_info (linux/tcp.h), milliseconds.
LAST_RECEIVED = slice(52, 56)

FAMILIES = (socket.AF_INET, socket.AF_INET6)


@contextlib.contextmanager
def _opened(descriptor: int) -> Iterator[socket.socket]:
    with socket.socket(fileno=os.dup(descriptor)) as found:
        yield found


def connections_of(ports: Collection[int]) -> dict[int, int]:
    """Return the connections to ports of this process: the number of the socket, and its descriptor.

    Raises:
        OSError: there is no descriptor left to look with.
    """
    return _find(ports, _is_connected)


def listeners_of(ports: Collection[int]) -> dict[int, int]:
    """Return what listens on ports of this process, like `connections_of`."""
    return _find(ports, _listens)


def _find(ports: Collection[int], wanted: Callable[[socket.socket], bool]) -> dict[int, int]:
    folder, found = Path("/proc/self/fd"), {}
    for descriptor in [int(entry.name) for entry in folder.iterdir()] if folder.is_dir() else ():
        with contextlib.suppress(OSError):  # closed meanwhile
            status = os.fstat(descriptor)
            if stat.S_ISSOCK(status.st_mode):
                with _opened(descriptor) as each:
                    if each.family in FAMILIES and each.getsockname()[1] in ports and wanted(each):
                        found[status.st_ino] = descriptor
    return found


def _is_connected(each: socket.socket) -> bool:
    each.getpeername()  # an error for what listens
    return True


def _listens(each: socket.socket) -> bool:
    return bool(each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def callers_of(descriptors: Iterable[int]) -> Iterator[tuple[int, int, float]]:
    """Yield the descriptor of each connection, the port of its other side, and for how many seconds that was silent."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError), _opened(descriptor) as found:  # closed meanwhile
            information = found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, LAST_RECEIVED.stop)
            silent_ms = int.from_bytes(information[LAST_RECEIVED], sys.byteorder)
            yield descriptor, found.getpeername()[1], silent_ms / 1000


def refuse(descriptor: int) -> None:
    """Refuse new connections where one listens; see `stop_connections`."""
    with contextlib.suppress(OSError), _opened(descriptor) as found:
        stop_connections(found)


def end(descriptor: int) -> None:
    """End a connection; whoever reads from it comes upon its end."""
    with contextlib.suppress(OSError), _opened(descriptor) as found:
        found.shutdown(socket.SHUT_RDWR)
