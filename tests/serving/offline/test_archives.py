import gzip
import io
import random
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from serving.offline import archives, pictures
from tests.serving.offline.conftest import Score, csv_lines, expected_digits, idx_bytes, npy_bytes, png_bytes, write_csv


def write_zip(path: Path, members: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def pictures_of(images) -> dict[str, bytes]:
    return {f"{number % 10}/{number:03}.png": png_bytes(image) for number, image in enumerate(images)}


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_members_are_items_labelled_by_their_folder(score: Score, digits, tmp_path: Path, kind: int):
    path = write_zip(tmp_path / "a", pictures_of(digits[0]), kind)
    scored = score(path)
    assert scored.code == 0
    assert scored.digits() == expected_digits(digits[0])
    assert [row["item"] for row in scored.rows] == list(pictures_of(digits[0]))
    assert [row["label"] for row in scored.rows] == [number % 10 for number in range(100)]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_members_are_items(score: Score, digits, tmp_path: Path, mode: str):
    path = write_tar(tmp_path / "a", pictures_of(digits[0]), mode)
    scored = score(path)
    assert scored.code == 0
    assert scored.digits() == expected_digits(digits[0])
    assert [row["label"] for row in scored.rows] == [number % 10 for number in range(100)]


def test_g13_a_sparse_member_of_tar_is_refused_whatever_size_it_claims(score: Score, digits, tmp_path: Path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("holes.npy")
        info.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 40)}
        info.size = 1
        archive.addfile(info, io.BytesIO(b"x"))
        info = tarfile.TarInfo("b.png")
        info.size = len(data := png_bytes(digits[0][0]))
        archive.addfile(info, io.BytesIO(data))
    errors = score(tmp_path / "a.tar").errors()
    assert errors == ["a sparse file: pack it anew without --sparse", None]


def test_members_of_every_kind(score: Score, digits, tmp_path: Path):
    images, labels = digits
    members = {
        "train.csv": write_csv(tmp_path / "x", images[:10], labels[:10]).read_bytes(),
        "images-idx3-ubyte": idx_bytes(images[10:20]),
        "more.npy": npy_bytes(images[20:30]),
        "one.png": png_bytes(images[30]),
        "__MACOSX/._one.png": b"",
        ".hidden": b"",
        "folder/": b"",
    }
    for path in (write_zip(tmp_path / "zip", members), write_tar(tmp_path / "tar", members)):
        scored = score(path)
        expected = expected_digits(images[:31])
        assert scored.digits()[:31] == expected
        assert scored.rows[0]["item"] == "train.csv/2"
        assert scored.rows[12]["item"] == "images-idx3-ubyte/2"


def test_g13_names_that_lead_elsewhere_are_only_names(score: Score, digits, tmp_path: Path):
    outside = tmp_path / "evil.png"
    members = {"../evil.png": png_bytes(digits[0][0]), f"{outside}": png_bytes(digits[0][1])}
    folder = tmp_path / "in"
    folder.mkdir()
    for path in (write_zip(folder / "zip", members), write_tar(folder / "tar", members)):
        before = sorted(tmp_path.rglob("*"))
        scored = score(path, output=tmp_path / "scored.parquet")
        assert scored.digits() == expected_digits(digits[0][:2])
        assert not outside.exists()
        assert {path.name for path in set(tmp_path.rglob("*")) - set(before)} <= {"scored.parquet", "summary.json"}


def test_g13_nested_archives_are_errors(score: Score, digits, tmp_path: Path):
    inner = write_zip(tmp_path / "inner", pictures_of(digits[0][:2])).read_bytes()
    packed = write_tar(tmp_path / "tar", pictures_of(digits[0][:2]), "w:gz").read_bytes()
    path = write_zip(tmp_path / "outer", {"inner.zip": inner, "packed.tgz": packed, "a.png": png_bytes(digits[0][0])})
    scored = score(path)
    assert scored.errors() == [
        "a zip inside an archive is not read: unpack it first",
        "a gzip inside an archive is not read: unpack it first",
        None,
    ]


def test_g13_links_and_devices_are_errors(score: Score, digits, tmp_path: Path):
    path = tmp_path / "zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("link.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
        archive.writestr("a.png", png_bytes(digits[0][0]))
    assert score(path).errors() == ["a link", None]
    tar = tmp_path / "tar"
    with tarfile.open(tar, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("x.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert score(tar).errors() == ["a link", "a link", "no regular file", "no regular file"]


def test_g13_encrypted_members_are_errors(score: Score, digits, tmp_path: Path):
    path = write_zip(tmp_path / "zip", {"a.png": png_bytes(digits[0][0])}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert score(path).errors() == ["encrypted"]


def test_g13_an_unknown_compression_is_an_error(score: Score, digits, tmp_path: Path):
    path = write_zip(tmp_path / "zip", {"a.png": png_bytes(digits[0][0])}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[8] = data[data.index(b"PK\x01\x02") + 10] = 97
    path.write_bytes(data)
    assert score(path).errors()[0].startswith("broken data: That compression method")


def test_a_zipped_csv_with_a_false_checksum_gives_all_its_rows_and_an_error(score: Score, digits, tmp_path: Path):
    rows = b"".join(f"{line}\n".encode() for line in csv_lines(*digits))
    path = write_zip(tmp_path / "zip", {"a.csv": rows})
    path.write_bytes(path.read_bytes().replace(struct.pack("<L", zlib.crc32(rows)), bytes(4)))
    scored = score(path)
    assert scored.digits() == [*expected_digits(digits[0]), None]
    assert scored.errors()[-1] == "broken data: Bad CRC-32 for file 'a.csv'"


def test_a_member_without_a_name_is_an_error_of_its_own(score: Score, digits, tmp_path: Path):
    path = write_zip(tmp_path / "zip", {"no name": b"", "b.png": png_bytes(digits[0][1])})
    path.write_bytes(path.read_bytes().replace(b"no name", b"\0o name"))
    scored = score(path)
    assert scored.errors() == ["a member without a name", None]
    assert scored.digits()[1:] == expected_digits(digits[0][1:2])


def test_a_member_whose_name_is_no_text_is_an_error(score: Score, digits, tmp_path: Path):
    path = write_zip(tmp_path / "zip", {"\u00e9.png": png_bytes(digits[0][0]), "b.png": png_bytes(digits[0][1])})
    path.write_bytes(path.read_bytes().replace("\u00e9".encode(), b"\xff\xff", 1))
    errors = score(path).errors()
    assert errors[0].startswith("broken data: ")
    assert errors[1] is None


def test_g13_a_member_larger_than_it_says_is_an_error(score: Score, digits, tmp_path: Path):
    path = write_zip(tmp_path / "zip", {"a.png": png_bytes(digits[0][0]), "b.png": png_bytes(digits[0][1])})
    data = path.read_bytes()
    true = struct.pack("<I", len(png_bytes(digits[0][0])))
    path.write_bytes(data.replace(true, struct.pack("<I", 20)))
    scored = score(path)
    assert scored.errors()[0] is not None
    assert scored.digits()[1] == expected_digits(digits[0][1:2])[0]


def test_g13_the_same_name_twice_is_two_items(score: Score, digits, tmp_path: Path):
    path = tmp_path / "zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", png_bytes(digits[0][0]))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.png", png_bytes(digits[0][1]))
    assert score(path).digits() == expected_digits(digits[0][:2])


def test_g13_a_bomb_is_cut_at_its_ratio(score: Score, digits, tmp_path: Path):
    path = tmp_path / "zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("zeros.png", "w", force_zip64=True) as member:
            for _ in range(100):
                member.write(bytes(1 << 20))
        archive.writestr("a.png", png_bytes(digits[0][0]))
    scored = score(path)
    assert scored.errors() == ["unpacks to more than 200 times its size", None]


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_g13_a_bomb_in_a_tar_ends_the_archive(score: Score, digits, tmp_path: Path, mode: str):
    path = write_tar(tmp_path / "tar", {"a.png": png_bytes(digits[0][0]), "zeros.png": bytes(50 << 20)}, mode)
    scored = score(path)
    assert scored.digits()[0] == expected_digits(digits[0][:1])[0]
    assert scored.errors()[1] == "unpacks to more than 200 times its size"


def test_g13_a_member_larger_than_any_picture_is_an_error(
    score: Score, digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("serving.offline.plan.PICTURE_BYTES", 5000)
    monkeypatch.setattr(pictures, "PICTURE_BYTES", 5000)
    large = random.Random(0).randbytes(6000)
    (tmp_path / "large.png").write_bytes(b"\x89PNG" + large)
    for path in (write_zip(tmp_path / "zip", {"a": large}), write_tar(tmp_path / "tar", {"a": large})):
        assert score(path).errors() == ["more than 5000 bytes"]
    assert score(tmp_path / "large.png").errors() == ["more than 5000 bytes"]


def test_g13_too_many_members_are_refused_before_they_are_read(
    score: Score, digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    monkeypatch.setattr(archives, "MAX_DIRECTORY_BYTES", 100)
    members = {f"{number}.png": png_bytes(digits[0][number]) for number in range(5)}
    zipped = write_zip(tmp_path / "zip", members)
    monkeypatch.setattr(zipfile, "ZipFile", None)
    assert score(zipped).errors() == ["a zip file with a directory of 255 bytes, at most 100"]
    assert score(write_tar(tmp_path / "tar", members)).errors() == [
        None,
        None,
        None,
        "more than 3 members; the rest is not read",
    ]


def test_g13_the_directory_of_a_zip64_file_is_measured(score: Score, tmp_path: Path):
    path = tmp_path / "zip"
    end64 = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 10**9, 10**9, 10**11, 0)
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, 4, 1)
    path.write_bytes(b"PK\x03\x04" + end64 + locator + b"PK\x05\x06" + b"\0" * 4 + b"\xff" * 12 + b"\0\0")
    assert score(path).errors() == ["a zip file with a directory of 100000000000 bytes, at most 32000000"]


def test_seventy_thousand_members_are_allowed():
    assert archives.MAX_MEMBERS >= 70_000
    assert archives.MAX_DIRECTORY_BYTES >= 70_000 * (46 + 60)


@pytest.mark.parametrize("data", [b"PK\x03\x04 no archive", b"PK\x05\x06"])
def test_a_broken_zip_is_an_error(score: Score, tmp_path: Path, data: bytes):
    path = tmp_path / "zip"
    path.write_bytes(data)
    assert score(path).errors() == ["broken data: a zip file without its directory"]


def test_a_cut_tar_gives_what_it_holds_and_an_error(score: Score, digits, tmp_path: Path):
    path = write_tar(tmp_path / "tar", pictures_of(digits[0][:5]), "w:gz")
    whole = zlib.decompress(path.read_bytes(), 31)
    path.write_bytes(whole[:2000])
    scored = score(path)
    assert scored.code == 3
    assert scored.digits()[0] == expected_digits(digits[0][:1])[0]
    assert scored.errors()[-1] is not None


def test_g13_a_gzip_bomb_is_cut_at_its_ratio(score: Score, tmp_path: Path):
    path = tmp_path / "a.csv.gz"
    line = (",".join(["0"] * 784) + "\n").encode()
    path.write_bytes(gzip.compress(line * 40_000))
    scored = score(path)
    assert scored.errors()[-1] == "unpacks to more than 200 times its size"
    assert len(scored.rows) < 20_000


def test_an_empty_archive_gives_no_rows(score: Score, tmp_path: Path):
    assert score(write_zip(tmp_path / "zip", {})).rows == []


def test_members_of_several_batches_keep_their_order(score: Score, test_digits, tmp_path: Path):
    images = test_digits[0][:300]
    path = write_zip(tmp_path / "zip", {f"{number}.png": png_bytes(image) for number, image in enumerate(images)})
    assert score(path).digits() == expected_digits(images)
    assert np.array([row["row"] for row in score(path).rows]).tolist() == list(range(300))
