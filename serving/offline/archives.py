"""Zip and tar: their members as streams, in order, within limits; nothing is written to disk.

Must not know: what the members hold.
"""

import stat
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import IO, cast

from serving.errors import InvalidInput
from serving.offline.streams import BROKEN, BUFFER_BYTES, Readable, describe_failure, read_fully
from serving.offline.zip_streams import open_member

# MNIST as single pictures has 70,000 members. The standard library keeps about 500 bytes for each of a zip file.
MAX_MEMBERS = 250_000
# Central directory of a zip file: at least 46 bytes a member, and the name.
MAX_DIRECTORY_BYTES = 128 * MAX_MEMBERS
# Deflate reaches 1032; real pictures and CSV files of digits stay below 30.
MAX_RATIO = 200
# Below this size the ratio is not looked at: a blank bitmap compresses well and does no harm.
RATIO_FREE_BYTES = 16 << 20
# What describes one member of a tar file, which the standard library holds. A name has at most a few kilobytes.
MAX_HEADER_BYTES = 1 << 20

_END_OF_DIRECTORY, _ZIP64_LOCATOR = b"PK\x05\x06", b"PK\x06\x07"


@dataclass(frozen=True, slots=True)
class Member:
    """One member: its name, and its bytes as a stream or why there are none."""

    name: str
    stream: Readable
    error: str | None = None


class Metered:
    """Counts what is read from a compressed member and stops at `MAX_RATIO` times what it takes in the archive.

    Args:
        stream: decompressed bytes.
        compressed_bytes: what they take in the archive.
    """

    def __init__(self, stream: BufferedIOBase, compressed_bytes: int):
        self._stream, self._left = stream, max(RATIO_FREE_BYTES, MAX_RATIO * compressed_bytes)
        self._failure: Exception | None = None

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes.

        Raises:
            InvalidInput: the ratio is reached.
        """
        if self._failure is None:
            try:
                return self._read(size)
            except (InvalidInput, *BROKEN) as error:
                self._failure = error  # a decompressor that is asked again tells something else, or of the end
        raise self._failure

    def _read(self, size: int) -> bytes:
        data = self._stream.read1(size)  # `read` asks for more until it has `size`, and loses all if that is broken
        self._left -= len(data)
        if self._left < 0:
            raise InvalidInput(f"unpacks to more than {MAX_RATIO} times its size")
        return data


def is_hidden(name: str) -> bool:
    """Tell whether a member is hidden, or what macOS packs beside each file of an archive; these are not looked at."""
    parts = Path(name).parts
    return any(part.startswith(".") and part != ".." for part in parts) or "__MACOSX" in parts


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip file.

    Raises:
        InvalidInput: a directory larger than that of `MAX_MEMBERS`, or none.
        zipfile.BadZipFile: a broken file.
    """
    _check_directory(path)
    return zipfile.ZipFile(path)


def zip_members(archive: zipfile.ZipFile) -> Iterator[Member]:
    """Yield the members of a zip file."""
    for info in archive.infolist():
        if not info.filename:  # which is_dir does not expect
            yield Member("", BytesIO(), "a member without a name")
        elif not info.is_dir() and not is_hidden(info.filename):
            yield from _zip_member(archive, info)


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[Member]:
    if stat.S_ISLNK(info.external_attr >> 16):
        yield Member(info.filename, BytesIO(), "a link")
        return
    if info.flag_bits & 1:
        yield Member(info.filename, BytesIO(), "encrypted")
        return
    try:
        stream = open_member(archive, info)
    except (InvalidInput, *BROKEN) as error:
        yield Member(info.filename, BytesIO(), describe_failure(error))
        return
    with stream:
        yield Member(info.filename, Metered(stream, info.compress_size))


def _check_directory(path: Path) -> None:
    """Refuse a zip file with too many members before the standard library reads them all."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        # The end record has 22 bytes and a comment of at most 65,535.
        file.seek(max(0, size - 22 - 65_535 - 76))
        tail = file.read()
    end = tail.rfind(_END_OF_DIRECTORY)
    if end < 0 or len(tail) < end + 22:
        raise InvalidInput("broken data: a zip file without its directory")
    directory_bytes = int.from_bytes(tail[end + 12 : end + 16], "little")
    if end >= 76 and tail.startswith(_ZIP64_LOCATOR, end - 20):  # its 56-byte end record lies before the locator
        directory_bytes = int.from_bytes(tail[end - 36 : end - 28], "little")
    if directory_bytes > MAX_DIRECTORY_BYTES:
        raise InvalidInput(f"a zip file with a directory of {directory_bytes} bytes, at most {MAX_DIRECTORY_BYTES}")


class _Unbroken:
    """A stream that ends where it is broken, which is the `failure`: `tarfile` loses what it has read by then.

    It ends where a header does not, too: `left` is what may be read before the next member.
    """

    def __init__(self, stream: Readable):
        self._stream, self.left = stream, MAX_HEADER_BYTES
        self.failure: Exception | None = None

    def read(self, size: int, /) -> bytes:
        if self.failure is None:
            try:
                return self._read(size)
            except (InvalidInput, *BROKEN) as error:
                self.failure = error
        return b""

    def _read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise InvalidInput(f"more than {MAX_HEADER_BYTES} bytes that describe one member")
        return data


class _Header(tarfile.TarInfo):
    """A header that is broken, or missing before the mark of the end, is an error: `tarfile` takes it for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        """Read a header.

        Raises:
            tarfile.ReadError: it is none.
            tarfile.HeaderError: it is the mark of the end.
        """
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise
            text = str(error) if len(buf) == tarfile.BLOCKSIZE else "unexpected end of data"
            raise tarfile.ReadError(text) from error


class _Part:
    """The bytes of a member of a tar stream; what `tarfile` itself gives loses those before the end of a cut one."""

    def __init__(self, whole: _Unbroken, packed: IO[bytes], size: int):
        self._whole, self._packed, self._left = whole, packed, max(0, size)  # a header may claim less than nothing

    def read(self, size: int, /) -> bytes:
        data = self._packed.read(min(size, self._left))
        self._left -= len(data)
        if self._left and size and not data:
            raise self._whole.failure or EOFError("unexpected end of data")
        return data


def tar_members(stream: Readable) -> Iterator[Member]:
    """Yield the members of a tar stream, decompressed before; each must be read before the next is asked for.

    Raises:
        InvalidInput: more members than `MAX_MEMBERS`, more than `MAX_HEADER_BYTES` before one, or a broken file; what
            the stream raises.
    """
    whole = _Unbroken(stream)
    try:
        with tarfile.open(fileobj=whole, mode="r|", tarinfo=_Header) as archive:  # type: ignore[call-overload]
            for count, info in enumerate(archive, 1):
                if count > MAX_MEMBERS:
                    raise InvalidInput(f"more than {MAX_MEMBERS} members; the rest is not read")
                packed = cast("IO[bytes]", archive.fileobj)
                whole.left = archive.offset - packed.tell() + MAX_HEADER_BYTES
                if not info.isdir() and not is_hidden(info.name):
                    yield _tar_member(whole, packed, info)
                _skip(packed, archive.offset)
                # The standard library keeps every member of a stream, and what headers say of all of them.
                archive.members, archive.pax_headers = [], {}
            _check_rest(whole, cast("IO[bytes]", archive.fileobj))
    except (tarfile.TarError, IndexError, ValueError) as error:  # the last two for sparse members whose map is cut
        whole.failure = whole.failure or InvalidInput(describe_failure(error))
    if whole.failure:
        raise whole.failure


def _skip(packed: IO[bytes], end: int) -> None:
    """Read on to where the next member begins: `tarfile` counts through bytes that are not there, for years."""
    while (left := end - packed.tell()) > 0:
        if not packed.read(min(left, BUFFER_BYTES)):
            raise tarfile.ReadError("unexpected end of data")


def _check_rest(whole: _Unbroken, packed: IO[bytes]) -> None:
    """Read what comes behind the mark of the end: it tells whether the stream is whole, and holds nothing but zeros."""
    data = b"\0"
    while data and not data.strip(b"\0"):
        whole.left = 2 * BUFFER_BYTES  # no header's
        data = packed.read(BUFFER_BYTES)
    if data:
        raise InvalidInput("more data behind the end of the archive, perhaps another one: it is not read")


def _tar_member(whole: _Unbroken, packed: IO[bytes], info: tarfile.TarInfo) -> Member:
    if not info.isreg():
        return Member(info.name, BytesIO(), "a link" if info.issym() or info.islnk() else "no regular file")
    if info.issparse():  # holes of any size, which no ratio bounds
        return Member(info.name, BytesIO(), "a sparse file: pack it anew without --sparse")
    return Member(info.name, _Part(whole, packed, info.size))


def read_member(stream: Readable, limit_bytes: int) -> bytes:
    """Return all bytes of a member.

    Raises:
        InvalidInput: more than `limit_bytes`.
    """
    data = read_fully(stream, limit_bytes + 1)
    if len(data) > limit_bytes:
        raise InvalidInput(f"more than {limit_bytes} bytes")
    return data
