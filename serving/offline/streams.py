"""Byte streams: look at the head without losing it, decompress, read to a limit.

Must not know: what the bytes mean.
"""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Protocol, cast

from serving.errors import InvalidInput
from serving.offline.sniff import HEAD_BYTES, Kind, sniff

# What the readers of the standard library raise on broken data.
BROKEN = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    UnicodeDecodeError,
)

BUFFER_BYTES = 1 << 20


class Readable(Protocol):
    """Bytes that can be read from beginning to end; what breaks it once is raised by every call from then on."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none at the end only."""
        ...


def read_fully(stream: Readable, size: int) -> bytes:
    """Return the next `size` bytes, fewer at the end only.

    Never allocates more than the stream gives, whatever `size` a forged header asks for.
    """
    return b"".join(_pieces(stream, size))


def read_whole(stream: Readable, size: int) -> bytes:
    """Return all that is left of a stream that has `size` bytes left; its end is reached, where a checksum is compared.

    Raises:
        InvalidInput: fewer bytes, or more.
    """
    data = read_fully(stream, size + 1)
    if len(data) != size:
        raise InvalidInput(f"{size} bytes expected, {'more' if len(data) > size else len(data)} found")
    return data


def read_until_broken(stream: Readable, size: int) -> bytes:
    """Return as `read_fully` does what comes before the stream is broken; the next call raises what it is."""
    pieces: list[bytes] = []
    try:
        pieces.extend(_pieces(stream, size))  # a list keeps what came before the exception
    except (InvalidInput, *BROKEN):
        if not pieces:
            raise
    return b"".join(pieces)


def _pieces(stream: Readable, size: int) -> Iterator[bytes]:
    while size and (data := stream.read(min(size, BUFFER_BYTES))):
        yield data
        size -= len(data)


class Rewound:
    """A stream with the `head` that was read from it put back."""

    def __init__(self, head: bytes, rest: Readable):
        self.head = self._unread = head
        self._rest = rest

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none at the end only."""
        if not self._unread:
            return self._rest.read(size)
        data, self._unread = self._unread[:size], self._unread[size:]
        return data


def look(stream: Readable) -> tuple[Kind, Rewound]:
    """Return the kind of the stream, and the stream as it was before."""
    head = read_fully(stream, HEAD_BYTES)
    return sniff(head), Rewound(head, stream)


def decompress(kind: Kind, stream: Readable) -> io.BufferedIOBase:
    """Return the decompressed stream of a gzip, bzip2 or xz stream."""
    packed = cast("IO[bytes]", stream)  # of which nothing but `read` is used
    if kind == "gzip":
        return gzip.GzipFile(fileobj=packed)
    return io.BufferedReader(_Streams(stream, bz2.BZ2Decompressor if kind == "bzip2" else lzma.LZMADecompressor))


class _Streams(io.RawIOBase):
    """Compressed streams one behind the other, as pbzip2 writes them for each 900 kB.

    What follows a stream and is neither zeros nor another one is an error: the standard library takes it for the end.

    Args:
        packed: the streams.
        new: makes a decompressor of one stream.
    """

    def __init__(self, packed: Readable, new: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor]):
        self._packed, self._new = packed, new
        self._decompressor = new()

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        """Read at most as many bytes as there is room for, none at the end only.

        Raises:
            EOFError: cut.
            OSError, lzma.LZMAError: broken.
        """
        data = b""
        while not data:
            packed = b""
            if self._decompressor.eof:
                if not (packed := self._next_stream()):
                    break
                self._decompressor = self._new()
            elif self._decompressor.needs_input and not (packed := self._packed.read(io.DEFAULT_BUFFER_SIZE)):
                raise EOFError("Compressed file ended before the end-of-stream marker was reached")
            data = self._decompressor.decompress(packed, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _next_stream(self) -> bytes:
        """Return how the next stream begins, nothing at the end."""
        packed = self._decompressor.unused_data.lstrip(b"\0")
        while not packed and (read := self._packed.read(io.DEFAULT_BUFFER_SIZE)):
            packed = read.lstrip(b"\0")
        return packed


def describe_failure(error: BaseException) -> str:
    """Return one line for what the operating system or a decompressor said, without a path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = str(error).partition("\n")[0]
    return f"broken data: {text}" if text else f"broken data: {type(error).__name__}"
