"""Request bodies, read within limits of size and time.

Must not know: what a body holds.
"""

import asyncio
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from serving.errors import InvalidInput, TooLarge
from serving.http.errors import BodyTimeout, CutOff

# What takes longer than about ten milliseconds to take apart leaves the event loop to the other callers.
INLINE_BYTES = 1_048_576

P = ParamSpec("P")
T = TypeVar("T")


async def read_body(request: Request, max_bytes: int, timeout_s: float) -> bytes:
    """Return the whole body.

    Raises:
        CutOff: it is larger than `max_bytes`, declared or not, or it did not arrive within `timeout_s` seconds; the
            rest is not read.
        InvalidInput: a Content-Length that is no number.
    """
    _check_declared(request, max_bytes)
    message = await _receive(request, timeout_s)
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        body = await _read_rest(request, body, max_bytes, timeout_s)
    if len(body) > max_bytes:
        raise _too_large(max_bytes)
    return body


def _check_declared(request: Request, max_bytes: int) -> None:
    declared = request.headers.get("content-length")
    if declared is None:
        return
    if not declared.isascii() or not declared.isdigit():
        raise InvalidInput(f"Content-Length: expected a number of bytes, got {declared[:40]!r}")
    if int(declared) > max_bytes:
        raise _too_large(max_bytes)


def _too_large(max_bytes: int) -> CutOff:
    return CutOff(TooLarge(f"the body is larger than the limit of {max_bytes} bytes"))


async def _receive(request: Request, timeout_s: float) -> Message:
    # The body of a small request is there already, and then no timer is needed.
    try:
        async with asyncio.timeout(timeout_s):
            message = await request.receive()
    except TimeoutError:
        raise CutOff(BodyTimeout(f"the body did not arrive within {timeout_s:g} s")) from None
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message


async def _read_rest(request: Request, start: bytes, max_bytes: int, timeout_s: float) -> bytes:
    body = bytearray(start)
    loop = asyncio.get_running_loop()
    stop = loop.time() + timeout_s
    while len(body) <= max_bytes:
        message = await _receive(request, max(stop - loop.time(), 0.0))
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return bytes(body)


async def take_apart(read: Callable[Concatenate[bytes, P], T], body: bytes, *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what `read` makes of a body and further arguments, a large one in a thread."""
    if len(body) <= INLINE_BYTES:
        return read(body, *args, **kwargs)
    return await asyncio.to_thread(read, body, *args, **kwargs)
