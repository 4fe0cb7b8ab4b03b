"""Ports for servers under test: none that the system gives to a connection meanwhile, or a process beside this one."""

import os
import secrets
import socket
from collections.abc import Iterator
from itertools import cycle

# Linux gives those above to connections, and to whoever asks for any port.
LOWEST, HIGHEST = 10_000, 32_767


def _mine() -> Iterator[int]:
    """Give this process's share of the ports again and again, from a random one on."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share = range(LOWEST + worker, HIGHEST + 1, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    first = secrets.randbelow(len(share))
    return cycle([*share[first:], *share[:first]])


_PORTS = _mine()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Return ports on which nothing listens at the moment, none of which was returned before."""
    free = filter(_is_free, _PORTS)
    return [next(free) for _ in range(count)]
