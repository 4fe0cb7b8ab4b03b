"""Members of zip files as streams that unpack no more than they are asked for, and give all that can be read.

The standard library unpacks at once whatever it has read of a member that bzip2 or LZMA packed: of 1,281 bytes 3.2 GB.
And it throws away what it has read last of a member where the checksum at its end is wrong.
Must not know: what the members hold.
"""

import bz2
import io
import lzma
import zipfile
import zlib
from copy import copy
from typing import IO, cast

from serving.errors import InvalidInput
from serving.offline.streams import Readable, Rewound, read_fully

# Of a member's flags: its LZMA stream says itself where it ends.
_HAS_END_MARK = 2
# Version of the LZMA SDK, and the size of what follows: 5 bytes of properties. APPNOTE.TXT of PKWARE, section 5.8.8.
_LZMA_HEAD_BYTES, _LZMA_PROPERTIES_BYTES = 4, 5


def open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo | str) -> io.BufferedIOBase:
    """Open a member of a zip file, decompressed.

    Raises:
        InvalidInput: an LZMA stream whose head is none.
    """
    info = member if isinstance(member, zipfile.ZipInfo) else archive.getinfo(member)
    unchecked = copy(info)
    del unchecked.CRC  # which is that of the unpacked bytes
    is_unpacked_here = info.compress_type in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    if is_unpacked_here:
        unchecked.compress_type, unchecked.file_size = zipfile.ZIP_STORED, info.compress_size
    opened = archive.open(unchecked)
    try:
        stream = _unpacked(opened, info) if is_unpacked_here else cast("io.BufferedIOBase", opened)
        return io.BufferedReader(_Checked(stream, opened, info))
    except BaseException:
        opened.close()
        raise


def _unpacked(packed: IO[bytes], info: zipfile.ZipInfo) -> io.BufferedIOBase:
    if info.compress_type == zipfile.ZIP_BZIP2:
        return bz2.BZ2File(packed)
    return lzma.LZMAFile(cast("IO[bytes]", _with_head(packed, info)), format=lzma.FORMAT_ALONE)


def _with_head(packed: Readable, info: zipfile.ZipInfo) -> Rewound:
    """Return the LZMA stream of a member with the head that it has outside zip files."""
    head = read_fully(packed, _LZMA_HEAD_BYTES + _LZMA_PROPERTIES_BYTES)
    if int.from_bytes(head[2:4], "little") != _LZMA_PROPERTIES_BYTES:
        raise InvalidInput("broken data: an LZMA stream without its properties")
    size = -1 if info.flag_bits & _HAS_END_MARK else info.file_size
    return Rewound(head[_LZMA_HEAD_BYTES:] + size.to_bytes(8, "little", signed=True), packed)


class _Checked(io.RawIOBase):
    """Bytes that are compared with their CRC at the end.

    Args:
        stream: decompressed bytes.
        opened: where they come from, or the same; closed with them.
        info: what the zip file says of them.
    """

    def __init__(self, stream: io.BufferedIOBase, opened: IO[bytes], info: zipfile.ZipInfo):
        self._stream, self._opened, self._info = stream, opened, info
        self._crc = 0

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        """Read at most as many bytes as there is room for, none at the end only.

        Raises:
            zipfile.BadZipFile: at the end, if they are not those that were packed.
        """
        data = self._stream.read1(len(buffer))
        self._crc = zlib.crc32(data, self._crc)
        if not data and self._crc != self._info.CRC:
            raise zipfile.BadZipFile(f"Bad CRC-32 for file {self._info.filename!r}")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close what it reads from, too."""
        self._stream.close()
        self._opened.close()
        super().close()
