import io
import random
import tracemalloc
import zipfile

import pytest

from serving.errors import InvalidInput
from serving.offline.archives import Metered
from serving.offline.streams import read_until_broken
from serving.offline.zip_streams import open_member

KINDS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
PACKED = KINDS[2:]
CONTENT = random.Random(0).randbytes(100_000) + bytes(1_000_000)


def zipped(kind: int, content: bytes = CONTENT) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive:
        archive.writestr("a/b.bin", content)
    return file


def read(file: io.BytesIO, size: int = -1) -> bytes:
    with zipfile.ZipFile(file) as archive, open_member(archive, "a/b.bin") as stream:
        return stream.read(size)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [CONTENT, b"", b"x"])
def test_a_member_is_what_was_packed(kind: int, content: bytes):
    assert read(zipped(kind, content)) == content


@pytest.mark.parametrize("kind", PACKED)
def test_no_more_is_unpacked_than_is_asked_for(kind: int):
    bomb = zipped(kind, bytes(100_000_000))
    assert len(bomb.getvalue()) < 20_000
    tracemalloc.start()
    try:
        assert read(bomb, 1_000_000) == bytes(1_000_000)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 20_000_000  # of which LZMA's dictionary has 8


def test_the_end_of_an_lzma_stream_may_be_known_by_its_size():
    file = zipped(zipfile.ZIP_LZMA)
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo("a/b.bin")
        info.flag_bits &= ~2
        with open_member(archive, info) as stream:
            assert stream.read() == CONTENT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", [b"", bytes(12)])
def test_no_member_keeps_the_file_open_whatever_became_of_it(kind: int, damage: bytes):
    content = bytearray(zipped(kind).getvalue())
    content[45 : 45 + len(damage)] = damage
    kept: list[BaseException] = []
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        try:
            with open_member(archive, "a/b.bin") as stream:
                stream.read()
        except Exception as error:
            kept.append(error)  # and with it whatever its frames hold
        assert archive._fileRefCnt == 1, "it is closed with the archive"


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_member_gives_all_there_is_and_an_error(kind: int):
    file = zipped(kind)
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo("a/b.bin")
        info.CRC ^= 1
        with open_member(archive, info) as stream:
            assert stream.read1(50_000) + read_until_broken(Metered(stream, len(CONTENT)), 2 * len(CONTENT)) == CONTENT
            with pytest.raises(zipfile.BadZipFile, match=r"Bad CRC-32.*a/b\.bin"):
                stream.read(1)
        info.CRC ^= 1
        with open_member(archive, info) as stream:
            assert stream.read() == CONTENT


def test_an_lzma_stream_without_its_properties_is_refused():
    file = zipped(zipfile.ZIP_STORED, bytes(100))
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo("a/b.bin")
        info.compress_type = zipfile.ZIP_LZMA
        with pytest.raises(InvalidInput, match="an LZMA stream without its properties"):
            open_member(archive, info)
