import gzip
import random
import time
import zlib
from collections.abc import Callable

import pytest

from serving.errors import InvalidInput, TooLarge, UnsupportedMediaType
from serving.heavy import PIECE_BYTES
from serving.http.compression import INLINE_BYTES, choose_encoding, pack, packed_by, unpack

BODY = b"a body " * 100
# Without the time of day: processes that run tests side by side must find tests of the same names.
GZIPPED = gzip.compress(BODY, mtime=0)


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", GZIPPED),
        ("x-gzip", GZIPPED),
        (" GZIP ", GZIPPED),
        ("deflate", zlib.compress(BODY)),
    ],
)
def test_a_body_is_unpacked(encoding: str, packed: bytes):
    known = packed_by(encoding)
    assert known is not None
    assert unpack(packed, known, len(BODY)) == BODY


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_a_body_may_be_as_it_is(encoding: str):
    assert packed_by(encoding) is None


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, deflate", "x"])
def test_other_encodings_are_not_read(encoding: str):
    with pytest.raises(UnsupportedMediaType, match="expected gzip, deflate or none"):
        packed_by(encoding)


def test_what_unpacks_to_more_than_the_limit_is_refused():
    bomb = gzip.compress(bytes(10_000_000))
    assert len(bomb) < 20_000
    with pytest.raises(TooLarge, match="more than the limit of 1000000 bytes"):
        unpack(bomb, "gzip", 1_000_000)
    assert len(unpack(bomb, "gzip", 10_000_000)) == 10_000_000


@pytest.mark.parametrize(
    ("packed", "said"),
    [
        (BODY, "is not gzip"),
        (zlib.compress(BODY), "is not gzip"),
        (GZIPPED[:-1], "cut short"),
        (b"", "cut short"),
        (GZIPPED + b"more", "4 bytes follow"),
        (GZIPPED[:-8] + bytes(8), "is not gzip"),
    ],
)
def test_a_broken_body_is_refused(packed: bytes, said: str):
    with pytest.raises(InvalidInput, match=said):
        unpack(packed, "gzip", 10_000)


@pytest.mark.parametrize("size", [PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
@pytest.mark.parametrize("make", [bytes, random.Random(0).randbytes])
def test_pieces_of_any_size_come_together_and_what_follows_is_found(size: int, make: Callable[[int], bytes]):
    body = make(size)
    packed = gzip.compress(body, mtime=0)
    assert unpack(packed, "gzip", size) == body
    with pytest.raises(TooLarge):
        unpack(packed, "gzip", size - 1)
    with pytest.raises(InvalidInput, match="cut short"):
        unpack(packed[:-1], "gzip", size)
    with pytest.raises(InvalidInput, match=f"{PIECE_BYTES} bytes follow"):
        unpack(packed + bytes(PIECE_BYTES), "gzip", size)


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ("", None),
        ("identity", None),
        ("br", None),
        ("gzip", "gzip"),
        ("deflate, gzip;q=0.5", "gzip"),
        ("deflate", "deflate"),
        ("gzip;q=0, deflate", "deflate"),
        ("gzip; q=0.0", None),
        ("GZIP", "gzip"),
    ],
)
def test_an_encoding_is_chosen_where_the_caller_takes_it(accepted: str, chosen: str | None):
    assert choose_encoding(accepted) == chosen


@pytest.mark.parametrize("size", [100, INLINE_BYTES + 1])
async def test_packing_is_undone_by_unpacking(size: int):
    body = bytes(size)
    for encoding in ("gzip", "deflate"):
        packed = await pack(body, encoding, time.monotonic() + 100)
        assert len(packed) < size
        assert unpack(packed, encoding, size) == body
