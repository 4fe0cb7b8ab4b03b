"""Request bodies, read within limits of size and time.

Must not know: what a body holds.
"""

import asyncio
from functools import partial

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from serving.errors import InvalidInput, QueueFull, TooLarge
from serving.heavy import INLINE_BYTES, PIECE_BYTES, Desk
from serving.http.errors import BodyTimeout, CutOff
from serving.settings import Settings

# Apart from the work on bodies, which others may have to wait for longer than a request may take.
_joining = Desk()


class BodyReader:
    """Reads bodies, never more at a time than there is room for.

    Args:
        settings: largest body, longest time for one, and how much may be on the way at once.

    Attributes:
        pending: bytes of the bodies that are being read or worked on; those that came in one piece do not count, but
            what they unpacked to does.
    """

    def __init__(self, settings: Settings):
        self.max_bytes, self._max_pending = settings.max_body_bytes, settings.max_pending_bytes
        self._timeout_s = settings.body_timeout_s
        self.pending = 0

    async def read(self, request: Request) -> bytes:
        """Return the whole body.

        Raises:
            CutOff: it is larger than the limit, declared or not, or it did not arrive in time, or there is no room for
                it now; the rest is not read.
            InvalidInput: a Content-Length that is no number.
        """
        _check_declared(request, self.max_bytes)
        message = await _receive(request, self._timeout_s)
        body: bytes = message.get("body", b"")
        if message.get("more_body"):
            return await self._read_rest(request, message)
        if len(body) > self.max_bytes:
            raise _too_large(self.max_bytes)
        return body

    def hold(self, size_bytes: int) -> None:
        """Count so many bytes more until the request's task has ended.

        Raises:
            QueueFull: there is no room for them now.
        """
        _Share(self).grow(size_bytes)
        if full := self._full():
            raise full

    def _full(self) -> QueueFull | None:
        """Return why there is no room for what is pending, if there is none."""
        if self.pending <= self._max_pending:
            return None
        return QueueFull(f"bodies of {self._max_pending} bytes are on the way; try again later", 1.0)

    async def _read_rest(self, request: Request, message: Message) -> bytes:
        pieces = _Pieces()
        loop = asyncio.get_running_loop()
        stop = loop.time() + self._timeout_s
        share = _Share(self)
        try:
            while True:
                pieces.add(message.get("body", b""))
                if pieces.size > self.max_bytes:
                    raise _too_large(self.max_bytes)
                share.grow(pieces.size)
                if full := self._full():
                    raise CutOff(full)
                if not message.get("more_body"):
                    return await pieces.join()
                message = await _receive(request, max(stop - loop.time(), 0.0))
        except BaseException:
            share.give_back()
            raise


class _Pieces:
    """What has arrived of a body, in pieces of some size, however small those are that arrive."""

    def __init__(self) -> None:
        self._whole: list[bytes] = []
        self._last = bytearray()
        self.size = 0

    def add(self, data: bytes) -> None:
        self._last += data
        self.size += len(data)
        if len(self._last) >= PIECE_BYTES:
            self._whole.append(bytes(self._last))
            self._last.clear()

    async def join(self) -> bytes:
        # To copy 33 MB takes 10 to 20 ms, during which join lets others have the interpreter.
        join = partial(b"".join, [*self._whole, bytes(self._last)])
        return join() if self.size <= INLINE_BYTES else await _joining.run(join)


class _Share:
    """What the body of a request takes of the room, until its task has ended: until then somebody may hold it."""

    def __init__(self, reader: BodyReader):
        self._reader, self._bytes = reader, 0
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(self.give_back)

    def grow(self, size_bytes: int) -> None:
        self._reader.pending += size_bytes - self._bytes
        self._bytes = size_bytes

    def give_back(self, _: object = None) -> None:
        self.grow(0)


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
