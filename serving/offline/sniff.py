"""What kind of file it is, from its first bytes; names say nothing.

Must not know: how a kind is read.
"""

from typing import Literal

Compressed = Literal["gzip", "bzip2", "xz"]
Table = Literal["parquet", "arrow_file", "arrow_stream"]
Unread = Literal["zstd", "feather_1", "encrypted_parquet"]
Kind = Literal["empty", Unread, Compressed, Table, "zip", "tar", "npy", "idx", "picture", "text"]

# A tar header has its magic at byte 257; nothing else lies further back.
HEAD_BYTES = 512

_MAGIC: tuple[tuple[bytes, Kind], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x93NUMPY", "npy"),
    (b"PAR1", "parquet"),
    (b"ARROW1\x00\x00", "arrow_file"),
    (b"\xff\xff\xff\xff", "arrow_stream"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"FEA1", "feather_1"),
    (b"PARE", "encrypted_parquet"),
)
_UTF16 = (b"\xff\xfe", b"\xfe\xff")

# Kinds that are known but not read, and what is to be done.
UNREAD: dict[Unread, str] = {
    "zstd": "Zstandard data is not read: unpack it first",
    "feather_1": "Feather version 1 is not read: save it as version 2 (Arrow) or Parquet",
    "encrypted_parquet": "encrypted Parquet is not read: decrypt it first",
}


def sniff(head: bytes) -> Kind:
    """Return the kind of a file whose first `HEAD_BYTES` bytes are `head`; what is unknown is tried as a picture."""
    if not head:
        return "empty"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[257:262] == b"ustar":
        return "tar"
    # IDX: two zero bytes, a type from 0x08 to 0x0E, the number of axes.
    if len(head) >= 4 and head[:2] == b"\0\0" and 0x08 <= head[2] <= 0x0E and 1 <= head[3] <= 4:
        return "idx"
    return "text" if _is_table_of_text(head) else "picture"


def _is_table_of_text(head: bytes) -> bool:
    if head.startswith(_UTF16):
        return True
    if b"\0" in head:
        return False
    try:
        # A character may be cut by the end of the head.
        text = head.decode("utf-8-sig") if len(head) < HEAD_BYTES else head[:-4].decode("utf-8-sig", "ignore")
    except UnicodeDecodeError:
        return False
    return any(separator in text for separator in ",;\t|")
