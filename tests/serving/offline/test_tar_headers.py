import gzip
import io
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from serving.errors import InvalidInput
from serving.offline import archives
from tests.serving.offline.conftest import Score, expected_digits, png_bytes
from tests.serving.offline.test_archives import write_tar


def endless_header(kind: bytes) -> bytes:
    """Return what describes a member of a tar file in three megabytes."""
    info = tarfile.TarInfo("x")
    info.type = kind
    info.size = 0 if kind == tarfile.GNUTYPE_SPARSE else 3 << 20
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    if kind == tarfile.GNUTYPE_SPARSE:
        header[482] = 1  # the map of its holes goes on in the next block, and so does that
        header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    return bytes(header) + (bytes(504) + b"\1" + bytes(7)) * (3 << 11)


@pytest.mark.parametrize("kind", [*(bytes([letter]) for letter in b"LKxgX"), tarfile.GNUTYPE_SPARSE])
@pytest.mark.parametrize("first", [False, True])
def test_g13_a_tar_file_whose_headers_are_large_is_read_up_to_them(
    score: Score, digits, tmp_path: Path, kind: bytes, first: bool
):
    members = b"" if first else write_tar(tmp_path / "a", {"a.png": png_bytes(digits[0][0])}).read_bytes()[:1024]
    (tmp_path / "a").write_bytes(members + endless_header(kind) + bytes(1024))
    scored = score(tmp_path / "a")
    assert scored.digits() == [*([] if first else expected_digits(digits[0][:1])), None]
    assert scored.errors()[-1] == "more than 1048576 bytes that describe one member"


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_large_members_that_are_not_looked_at_are_no_large_headers(
    score: Score, digits, tmp_path: Path, form: int
):
    members = {".hidden": bytes(3 << 20), f"{'x' * 3000}.png": png_bytes(digits[0][0]), "b.png": bytes(3 << 20)}
    with tarfile.open(tmp_path / "a", "w", format=form, pax_headers={"comment": "y" * 3000}) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    scored = score(tmp_path / "a")
    assert [row["item"] for row in scored.rows] == list(members)[1:]
    assert scored.digits()[0] == expected_digits(digits[0][:1])[0]


def test_what_headers_say_of_all_members_is_not_kept(digits, tmp_path: Path):
    with tarfile.open(tmp_path / "a", "w") as archive:
        for number in range(20):
            archive.fileobj.write(tarfile.TarInfo.create_pax_global_header({f"{number}": "x" * 900_000}))
            archive.addfile(tarfile.TarInfo(f"{number}.png"))
    tracemalloc.start()
    try:
        with (tmp_path / "a").open("rb") as file:
            assert [member.name for member in archives.tar_members(file)] == [f"{number}.png" for number in range(20)]
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


class Ended(io.BytesIO):
    """Bytes that are not asked for again and again when there are none left."""

    times = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.times += self.tell() == len(self.getbuffer())
        assert self.times < 100
        return super().read(size)


def test_g13_a_member_that_claims_more_bytes_than_a_disk_holds_comes_to_an_end(digits, tmp_path: Path):
    data = bytearray(write_tar(tmp_path / "a", {"a.png": png_bytes(digits[0][0])}).read_bytes())
    data[124:136] = b"\x80" + (1 << 62).to_bytes(11, "big")  # GNU's form of sizes beyond 8 GB
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + 8 * 32 + sum(data[156:512]))
    members = archives.tar_members(Ended(data))
    assert next(members).name == "a.png"
    with pytest.raises(InvalidInput, match="unexpected end of data"):
        next(members)


def cut_or_broken(whole: bytes, case: str) -> bytes:
    second = 1024  # behind a header and a picture of less than 512 bytes
    return {
        "a broken header": whole[: second + 9] + b"x" + whole[second + 10 :],
        "cut within a header": whole[: second + 100],
        "cut before a header": whole[:second],
        "another archive": whole + whole,
        "another archive behind many zeros": whole + bytes(3 << 20) + whole,
    }[case]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(
    ("case", "count", "error"),
    [
        ("a broken header", 1, "broken data: bad checksum"),
        ("cut within a header", 1, "broken data: unexpected end of data"),
        ("cut before a header", 1, "broken data: unexpected end of data"),
        ("another archive", 2, "more data behind the end of the archive, perhaps another one: it is not read"),
        (
            "another archive behind many zeros",
            2,
            "more data behind the end of the archive, perhaps another one: it is not read",
        ),
    ],
)
def test_members_of_a_tar_file_that_are_not_found_are_an_error(
    score: Score, digits, tmp_path: Path, case: str, count: int, error: str, pack
):
    members = {f"{number}.png": png_bytes(image) for number, image in enumerate(digits[0][:2])}
    whole = write_tar(tmp_path / "a", members).read_bytes()
    assert whole[1024:].startswith(b"1.png")
    (tmp_path / "a").write_bytes(pack(cut_or_broken(whole, case)))
    scored = score(tmp_path / "a")
    assert scored.digits() == [*expected_digits(digits[0][:count]), None]
    assert scored.errors()[-1] == error
