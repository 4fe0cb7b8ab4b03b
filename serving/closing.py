"""How a listening socket is closed without cutting off a caller.

Must not know: who listens.
"""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Iterable

# From asm-generic/socket.h; needs no privilege since Linux 5.7, "net: remove capability check for SO_BINDTODEVICE".
SO_BINDTOIFINDEX = 62

# The largest number that the option takes. No interface has it: they are numbered from 1 on.
NO_INTERFACE = 2**31 - 1

# What has been shaken hands with arrives and is accepted within this time.
SETTLE_S = 0.2


def stop_connections(listening: socket.socket) -> None:
    """Refuse new connections for good; those that wait can still be accepted.

    Closing alone resets what waits to be accepted, requests included. Bound to an interface through which nothing
    comes, the socket is not found for a new connection: its caller is refused at once, finds another server, or nobody,
    and knows that nothing was lost. A filter that drops such segments would do too, but newer kernels, 6.18.44 for one,
    want CAP_NET_ADMIN for it. Where neither can be had, before Linux 5.7 or on other systems, this does nothing.
    """
    if sys.platform == "linux":
        # Refused also where another process that shares the socket was first.
        with contextlib.suppress(OSError):
            listening.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, NO_INTERFACE)


async def settle(listening: Iterable[socket.socket]) -> None:
    """Stop new connections and let those that wait be accepted."""
    for each in listening:
        stop_connections(each)
    await asyncio.sleep(SETTLE_S)
