"""Compressed bodies: gzip and deflate, unpacked within a limit, packed where the caller takes it.

Must not know: what a body holds.
"""

import gzip
import zlib
from functools import partial

from serving.errors import InvalidInput, TooLarge, UnsupportedMediaType
from serving.heavy import PIECE_BYTES, here_or_alone

# zlib's window bits: gzip's header is asked for by 16 more. RFC 9110 calls the zlib format "deflate".
WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}

# Codings ignore case: RFC 9110, section 8.4.1.
AS_IT_IS = ("", "identity")

# What fits into one Ethernet packet travels no faster for being smaller.
MIN_PACKED_BYTES = 1400

# The fastest level; 2,000 rows of JSON shrink to 0.45 of their size by it, to 0.43 by level 6 in three times the time.
LEVEL = 1

# What takes longer than a few milliseconds leaves the event loop.
INLINE_BYTES = 65_536


def refuse_packed(encoding: str) -> None:
    """Refuse a body that is not as it is, by its Content-Encoding.

    Raises:
        UnsupportedMediaType: says what it is and what was expected.
    """
    if encoding.strip().lower() not in AS_IT_IS:
        raise UnsupportedMediaType(f"Content-Encoding {encoding[:40]!r}: send the body as it is")


def packed_by(encoding: str) -> str | None:
    """Return how a body is packed by its Content-Encoding, as `unpack` takes it; None if it is as it is.

    Raises:
        UnsupportedMediaType: neither gzip nor deflate.
    """
    encoding = encoding.strip().lower()
    if encoding in AS_IT_IS:
        return None
    if encoding not in WINDOW_BITS:
        raise UnsupportedMediaType(f"Content-Encoding {encoding[:40]!r}: expected gzip, deflate or none")
    return encoding


def unpack(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Return the body that was packed.

    Raises:
        InvalidInput: broken, cut short, or followed by something else.
        TooLarge: more than `max_bytes` when unpacked; the rest is not unpacked.
    """
    unpacker = zlib.decompressobj(WINDOW_BITS[encoding])
    pieces: list[bytes] = []
    size = start = 0
    # In pieces: zlib puts a large result together, and frees it, while nobody else has the interpreter.
    while start < len(body) and not unpacker.eof:
        packed, full = body[start : start + PIECE_BYTES], True
        start += len(packed)
        while full and not unpacker.eof:
            piece = _decompress(unpacker, packed, encoding)
            packed, full = unpacker.unconsumed_tail, len(piece) == PIECE_BYTES
            pieces.append(piece)
            size += len(piece)
            if size > max_bytes:
                pieces.clear()
                raise TooLarge(f"the body unpacks to more than the limit of {max_bytes} bytes")
    if not unpacker.eof:
        raise InvalidInput(f"the {encoding} body is cut short")
    if behind := len(unpacker.unused_data) + len(body) - start:
        raise InvalidInput(f"{behind} bytes follow the end of the {encoding} body")
    return b"".join(pieces)


def _decompress(unpacker: "zlib._Decompress", packed: bytes, encoding: str) -> bytes:
    try:
        return unpacker.decompress(packed, PIECE_BYTES)
    except zlib.error as error:
        raise InvalidInput(f"the body is not {encoding}: {error}") from error


def choose_encoding(accepted: str) -> str | None:
    """Return gzip or deflate where `accepted` (Accept-Encoding) names it, gzip first, else None."""
    names = set()
    for choice in accepted.lower().split(","):
        name, _, quality = choice.partition(";")
        if quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            names.add(name.strip())
    return next((name for name in ("gzip", "deflate") if name in names), None)


async def pack(body: bytes, encoding: str, deadline: float) -> bytes:
    """Return the body, compressed by `encoding`, gzip or deflate, before `deadline`, monotonic seconds."""
    return await here_or_alone(len(body), INLINE_BYTES, partial(pack_now, body, encoding), deadline)


def pack_now(body: bytes, encoding: str) -> bytes:
    """Return the same as `pack`, whatever it takes."""
    # A fixed time in gzip's header: equal answers are equal bytes.
    return gzip.compress(body, LEVEL, mtime=0) if encoding == "gzip" else zlib.compress(body, LEVEL)
