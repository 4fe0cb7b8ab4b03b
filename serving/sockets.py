"""The connections of this process, as the system (Linux) shows them.

Must not know: what is spoken on them.
"""

import contextlib
import os
import socket
import stat
from collections.abc import Collection, Iterator
from pathlib import Path


@contextlib.contextmanager
def _opened(descriptor: int) -> Iterator[socket.socket]:
    with socket.socket(fileno=os.dup(descriptor)) as found:
        yield found


def connections_of(ports: Collection[int]) -> dict[int, int]:
    """Return the connections to ports of this process: the number of the socket, and its descriptor.

    Raises:
        OSError: there is no descriptor left to look with.
    """
    folder, found = Path("/proc/self/fd"), {}
    for descriptor in [int(entry.name) for entry in folder.iterdir()] if folder.is_dir() else ():
        # Closed meanwhile, or it listens: then there is no peer.
        with contextlib.suppress(OSError):
            status = os.fstat(descriptor)
            if stat.S_ISSOCK(status.st_mode) and _is_connected(descriptor, ports):
                found[status.st_ino] = descriptor
    return found


def _is_connected(descriptor: int, ports: Collection[int]) -> bool:
    with _opened(descriptor) as each:
        if each.family not in (socket.AF_INET, socket.AF_INET6) or each.getsockname()[1] not in ports:
            return False
        each.getpeername()
    return True


def end(descriptor: int) -> None:
    """End a connection; whoever reads from it comes upon its end."""
    with contextlib.suppress(OSError), _opened(descriptor) as found:
        found.shutdown(socket.SHUT_RDWR)
