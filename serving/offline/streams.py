"""Byte streams: look at the head without losing it, decompress, read to a limit.

Must not know: what the bytes mean.
"""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from typing import IO, Protocol

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
    """Bytes that can be read from beginning to end."""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes, none at the end only; all that is left for -1."""
        ...


def read_fully(stream: Readable, size: int) -> bytes:
    """Return the next `size` bytes, fewer at the end only.

    Never allocates more than the stream gives, whatever `size` a forged header asks for.
    """
    data = stream.read(min(size, BUFFER_BYTES))
    if len(data) == size or not data:
        return data
    pieces, missing = [data], size - len(data)
    while missing and (data := stream.read(min(missing, BUFFER_BYTES))):
        pieces.append(data)
        missing -= len(data)
    return b"".join(pieces)


class _Rewound(io.RawIOBase):
    """A stream with the head that was read from it put back."""

    def __init__(self, head: bytes, rest: Readable):
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._head[: len(buffer)] if self._head else self._rest.read(len(buffer))
        self._head = self._head[len(data) :]
        buffer[: len(data)] = data
        return len(data)


def look(stream: Readable) -> tuple[Kind, io.BufferedReader]:
    """Return the kind of the stream, and the stream as it was before."""
    head = read_fully(stream, HEAD_BYTES)
    return sniff(head), io.BufferedReader(_Rewound(head, stream), BUFFER_BYTES)


def decompress(kind: Kind, stream: IO[bytes]) -> io.BufferedIOBase:
    """Return the decompressed stream of a gzip, bzip2 or xz stream."""
    if kind == "gzip":
        return gzip.GzipFile(fileobj=stream)
    return bz2.BZ2File(stream) if kind == "bzip2" else lzma.LZMAFile(stream)


def describe_failure(error: BaseException) -> str:
    """Return one line for what the operating system or a decompressor said, without a path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = str(error).partition("\n")[0]
    return f"broken data: {text}" if text else f"broken data: {type(error).__name__}"
