import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from serving.errors import InvalidInput
from serving.offline.archives import Metered
from serving.offline.streams import BUFFER_BYTES, read_fully, read_until_broken
from tests.serving.offline.conftest import Score, csv_lines, expected_digits, idx_bytes, png_bytes
from tests.serving.offline.test_archives import write_tar

PACK = {
    "gzip": lambda data: gzip.compress(data, 1),
    "bzip2": lambda data: bz2.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0),
}


def readable(kind: str, packed: bytes) -> bytes:
    """Return what can be unpacked of the packed bytes, as the libraries themselves say."""
    unpackers = {"gzip": zlib.decompressobj(31), "bzip2": bz2.BZ2Decompressor(), "xz": lzma.LZMADecompressor()}
    return unpackers[kind].decompress(packed)


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("share", [0.5, 1])
def test_a_packed_file_that_is_cut_gives_all_that_can_be_read_and_an_error(
    score: Score, test_digits, tmp_path: Path, kind: str, share: float
):
    images = test_digits[0][:3000]
    packed = PACK[kind](idx_bytes(images))
    cut = packed[: round(len(packed) * share) - 1]
    count = (len(readable(kind, cut)) - 16) // 784
    assert count > 1000
    (tmp_path / "a").write_bytes(cut)
    scored = score(tmp_path / "a")
    assert scored.code == 3
    assert scored.digits() == [*expected_digits(images[:count]), None]
    assert scored.errors()[-1] == "broken data: Compressed file ended before the end-of-stream marker was reached"


@pytest.mark.parametrize("damage", [lambda gz: gz + b"junk", lambda gz: gz + b"ab", lambda gz: gz[:-8] + bytes(8)])
def test_a_gzip_file_with_a_false_end_gives_its_rows_and_an_error(score: Score, test_digits, tmp_path: Path, damage):
    images, labels = test_digits[0][:1500], test_digits[1][:1500]
    rows = "".join(f"{line}\n" for line in csv_lines(images, labels)).encode()
    (tmp_path / "a").write_bytes(damage(gzip.compress(rows, 1)))
    scored = score(tmp_path / "a")
    assert scored.digits() == [*expected_digits(images), None]
    assert scored.errors()[-1].startswith(("broken data: Not a gzipped file", "broken data: CRC check failed"))


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("share", [0.5, 1])
def test_a_packed_tar_file_that_is_cut_gives_every_whole_member_and_an_error(
    score: Score, digits, tmp_path: Path, kind: str, share: float
):
    members = {f"{number}.png": png_bytes(image) for number, image in enumerate(digits[0])}
    packed = PACK[kind](write_tar(tmp_path / "a", members).read_bytes())
    cut = packed[: round(len(packed) * share) - 1]
    count, end = 0, len(readable(kind, cut))
    with tarfile.open(tmp_path / "a") as archive:
        while count < len(members) and (info := archive.next()) and info.offset_data + info.size <= end:
            count += 1
    (tmp_path / "a").write_bytes(cut)
    scored = score(tmp_path / "a")
    assert scored.digits()[:count] == expected_digits(digits[0][:count])
    assert scored.digits()[count:] in ([None], [None, None])
    assert set(scored.errors()[count:]) == {
        "broken data: Compressed file ended before the end-of-stream marker was reached"
    }


@pytest.mark.parametrize("pack", [bytes, PACK["gzip"]])
def test_a_table_in_a_tar_file_that_is_cut_gives_its_whole_rows(score: Score, digits, tmp_path: Path, pack):
    rows = "".join(f"{line}\n" for line in csv_lines(*digits)).encode()
    packed = pack(write_tar(tmp_path / "a", {"rows.csv": rows}).read_bytes())
    cut = packed[: len(packed) // 2]
    unpacked = cut if pack is bytes else readable("gzip", cut)
    (tmp_path / "a").write_bytes(cut)
    scored = score(tmp_path / "a")
    count = unpacked.count(b"\n")
    assert count > 30
    assert scored.digits()[:count] == expected_digits(digits[0][:count])
    assert all(scored.errors()[count:])


@pytest.mark.parametrize("form", ["old", "1.0"])
def test_a_tar_file_that_is_cut_in_the_map_of_a_sparse_member_is_an_error(score: Score, tmp_path: Path, form: str):
    info = tarfile.TarInfo("holes.npy")
    info.size = 512
    if form == "old":
        info.type = tarfile.GNUTYPE_SPARSE
        header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        header[482] = 1  # the map goes on in the next block
        header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
        data = bytes(header)
    else:
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}
        data = info.tobuf(tarfile.PAX_FORMAT)
    (tmp_path / "a.tar").write_bytes(data)
    (error,) = score(tmp_path / "a.tar").errors()
    assert error.startswith("broken data: ")


def test_a_member_of_less_than_no_bytes_is_an_error(score: Score, digits, tmp_path: Path):
    path = write_tar(tmp_path / "a", {"a.png": png_bytes(digits[0][0])})
    header = bytearray(path.read_bytes())
    header[124:136] = b"\xff" * 12  # -1 in base 256
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:512]))
    path.write_bytes(header)
    assert score(path).errors()[0] == "empty"


def test_what_comes_before_a_failure_is_returned_and_the_failure_is_kept():
    data = np.random.default_rng(0).bytes(3 * BUFFER_BYTES)
    packed = gzip.compress(data, 1)
    stream = Metered(gzip.GzipFile(fileobj=io.BytesIO(packed[:-8] + bytes(8))), len(packed))
    assert read_until_broken(stream, 4 * BUFFER_BYTES) == data
    for _ in range(3):
        with pytest.raises(gzip.BadGzipFile, match="CRC check failed"):
            read_until_broken(stream, 1)


def test_what_is_read_as_a_whole_is_not_given_in_part():
    packed = gzip.compress(bytes(1000))
    with pytest.raises(EOFError):
        read_fully(Metered(gzip.GzipFile(fileobj=io.BytesIO(packed[:-1])), len(packed)), 2000)


def test_nothing_is_read_beyond_the_ratio(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("serving.offline.archives.RATIO_FREE_BYTES", 1000)
    stream = Metered(io.BytesIO(bytes(5000)), 0)
    assert len(stream.read(600)) == 600
    for _ in range(3):
        with pytest.raises(InvalidInput, match="more than 200 times"):
            stream.read(600)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_streams_one_behind_the_other_are_one_file(score: Score, digits, tmp_path: Path, compress):
    path = tmp_path / "a.csv"
    lines = [f"{line}\n".encode() for line in csv_lines(digits[0][:3])]
    path.write_bytes(compress(b"".join(lines[:2])) + bytes(8) + compress(lines[2]) + bytes(100_000))
    scored = score(path)
    assert (scored.code, scored.digits()) == (0, expected_digits(digits[0][:3]))


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("place", [1, 40])
def test_a_broken_stream_behind_another_is_an_error(score: Score, digits, tmp_path: Path, compress, place: int):
    path = tmp_path / "a.csv"
    lines = [f"{line}\n".encode() for line in csv_lines(digits[0][:2])]
    second = compress(lines[1])
    path.write_bytes(compress(lines[0]) + second[:place] + bytes([second[place] ^ 0x55]) + second[place + 1 :])
    scored = score(path)
    assert scored.digits()[0] == expected_digits(digits[0][:1])[0]
    assert scored.errors()[0] is None
    assert scored.errors()[-1].startswith("broken data: ")
