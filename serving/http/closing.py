"""How a listening socket is closed without cutting off a caller.

Must not know: who listens.
"""

import asyncio
import ctypes
import socket
import struct
import sys
from collections.abc import Iterable

# From asm-generic/socket.h.
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27

# Classic BPF, run on each segment to the socket, from its TCP header on: drop those with the flag SYN (2 at byte 13).
DROP_SYN = (
    (0x30, 0, 0, 13),  # load the byte of the flags
    (0x45, 0, 1, 2),  # if SYN is set, go on, else skip one
    (0x06, 0, 0, 0),  # return 0: drop
    (0x06, 0, 0, 0xFFFFFFFF),  # return all: take
)

# What has been shaken hands with arrives and is accepted within this time.
SETTLE_S = 0.2


def stop_connections(listening: socket.socket) -> None:
    """Take no new connections; those that wait can still be accepted.

    Closing alone resets what waits to be accepted, requests included. A segment that is dropped is sent again by the
    caller's system after a second, and then finds another server, or nobody, and knows that nothing was lost. On other
    systems than Linux this does nothing.
    """
    if sys.platform != "linux":
        return
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in DROP_SYN))
    program = struct.pack("HL", len(DROP_SYN), ctypes.addressof(code))
    listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def resume_connections(listening: socket.socket) -> None:
    """Undo `stop_connections`."""
    if sys.platform == "linux":
        try:
            listening.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        except FileNotFoundError:
            return


async def settle(listening: Iterable[socket.socket]) -> None:
    """Stop new connections and let those that wait be accepted."""
    for each in listening:
        stop_connections(each)
    await asyncio.sleep(SETTLE_S)
