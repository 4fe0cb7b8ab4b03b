"""What a small file may unpack to, in pixels and in memory, and what it may cost."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from serving.errors import TooLarge, UnreadablePicture
from serving.preprocess import prepare
from serving.preprocess.decode import _to_grey
from serving.preprocess.digit import _smooth
from tests.pictures import encode, png
from tests.serving.preprocess.test_decode import looks_like


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "F"])
def test_a_picture_in_bands_is_the_picture_in_one_piece(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Neither side is a multiple of the factor by which it is made smaller.
    values = np.random.default_rng(0).integers(0, 256, (60, 4003), np.uint8)
    values[:10] = values[-10:] = 99  # the extremes are in neither the first band nor the last
    picture = (
        Image.fromarray(values.astype(np.uint16) * 200) if mode == "I;16" else Image.fromarray(values).convert(mode)
    )
    whole = _to_grey(picture)
    assert whole.shape == ((60, 4003) if mode in ("I;16", "F") else (30, 2002))
    monkeypatch.setattr(sys.modules["serving.preprocess.decode"], "BAND_PIXELS", 40_000)
    assert (_to_grey(picture) == whole).all()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def test_a_huge_picture_is_refused_by_its_header() -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 65000, 65000, 1, 0, 0, 0, 0))
    with pytest.raises(TooLarge, match="65000x65000"):
        prepare(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"nothing"))


def test_the_limit_is_exact(large: Any) -> None:
    assert prepare(png(large), max_pixels=280 * 210).box
    with pytest.raises(TooLarge, match="at most 58799"):
        prepare(png(large), max_pixels=280 * 210 - 1)


def test_a_webp_counts_twice(large: Any) -> None:
    assert prepare(encode(large, "WEBP"), max_pixels=2 * 280 * 210).box
    with pytest.raises(TooLarge, match="at most 58799"):
        prepare(encode(large, "WEBP"), max_pixels=2 * 280 * 210 - 2)


def test_a_run_length_bmp_counts_sixteen_times() -> None:
    runs = b"\x80\0\0\0" * 128 + b"\0\1"
    head = struct.pack("<2sIIIIiiHHIIiiII", b"BM", 0, 0, 1078, 40, 128, 128, 1, 8, 1, len(runs), 0, 0, 0, 0)
    data = head + bytes(1024) + runs
    assert prepare(data, max_pixels=16 * 128 * 128).blank
    with pytest.raises(TooLarge, match="at most 16383"):
        prepare(data, max_pixels=16 * 128 * 128 - 1)


# Prints the kilobytes that the second picture took beyond the first.
MEMORY = """
import sys
from pathlib import Path
from serving.preprocess import prepare
small, large = (Path(name).read_bytes() for name in sys.argv[1:])
def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
prepare(small)
before = peak()
prepare(large)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("mode", "form", "side"),
    [("RGB", "PNG", 7000), ("LA", "PNG", 7000), ("I;16", "PNG", 7000), ("F", "TIFF", 7000), ("RGBA", "WEBP", 4990)],
)
def test_a_picture_at_the_limit_takes_no_more_than_its_decoder(
    mode: str, form: str, side: int, large: Any, tmp_path: Path
) -> None:
    (tmp_path / "small").write_bytes(png(large))
    picture = Image.new(mode, (side, side), 128 if len(mode) != 4 or mode == "I;16" else (9, 9, 9, 128))
    picture.save(tmp_path / "large", form, **({"compression": "tiff_deflate"} if form == "TIFF" else {}))
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "small"), str(tmp_path / "large")]
    done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60)
    assert int(done.stdout) < 450_000


def test_a_text_chunk_that_unpacks_to_100_megabytes_is_refused(large: Any) -> None:
    text = chunk(b"zTXt", b"bomb\0\0" + zlib.compress(bytes(100_000_000), 9))
    data = png(large)
    with pytest.raises(UnreadablePicture, match="broken PNG"):
        prepare(data[:33] + text + data[33:])


def test_a_tiff_of_many_directories_is_read_like_one(large: Any) -> None:
    data = encode(large, "TIFF")
    assert data[:4] == b"II*\0"
    (first,) = struct.unpack_from("<I", data, 4)
    link = first + 2 + 12 * struct.unpack_from("<H", data, first)[0]
    assert data[link : link + 4] == bytes(4)
    others = range(len(data), len(data) + 18 * 100_000, 18)
    chain = b"".join(struct.pack("<HHHIII", 1, 256, 4, 1, 8, place + 18) for place in others[:-1])
    chained = data[:link] + struct.pack("<I", others[0]) + data[link + 4 :] + chain
    assert looks_like(chained + struct.pack("<HHHIII", 1, 256, 4, 1, 8, 0), prepare(png(large)).image)


def tiled(side: int, kind: int = 4) -> bytes:
    """Return a TIFF of 8x8 pixels in one tile, whose width has this type: a whole number, or else none."""
    tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 277: 1, 322: side, 323: side, 324: 8, 325: 256}
    kinds = dict.fromkeys(tags, 4) | {322: kind}
    entries = b"".join(struct.pack("<HHII", tag, kinds[tag], 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(260)


def test_huge_tiles_in_a_small_tiff_are_refused() -> None:
    with pytest.raises(TooLarge, match="tiles of 60000x60000"):
        prepare(tiled(60000))
    assert prepare(tiled(16), max_pixels=256).size == (8, 8)
    with pytest.raises(TooLarge, match="tiles of 16x16"):
        prepare(tiled(16), max_pixels=255)


@pytest.mark.parametrize("kind", [2, 11])
def test_tiles_whose_size_is_no_whole_number_are_broken(kind: int) -> None:
    with pytest.raises(UnreadablePicture, match="a broken TIFF picture"):
        prepare(tiled(16, kind))


@pytest.mark.parametrize("dot", [1, 2, 3])
def test_a_dot_is_not_smoothed_in_a_large_picture(dot: int, monkeypatch: pytest.MonkeyPatch) -> None:
    costs, blur = [], cv2.GaussianBlur

    def counted(values: Any, size: Any, sigma: float) -> Any:
        costs.append(values.size * sigma)
        return blur(values, size, sigma)

    monkeypatch.setattr(cv2, "GaussianBlur", counted)
    for side in (5, 6, 28):
        picture = np.full((side, side), 255, np.uint8)
        picture[1 : 1 + dot, 1 : 1 + dot] = 0
        assert prepare(png(picture)).reasons == (("blank",) if side == 28 and dot < 3 else ("not_a_digit",))
    # A pixel's smoothing takes time in proportion to the deviation; it was 51 million for a picture of 5x5 pixels.
    assert max(costs, default=0) < 2e6


def test_a_dot_that_is_smoothed_in_a_small_picture_looks_the_same() -> None:
    values = np.zeros((373, 373), np.uint8)
    values[107:267, 107:267] = 200
    difference = cv2.absdiff(_smooth(values, 27.0), cv2.GaussianBlur(values, (0, 0), 27.0))
    assert difference.max() <= 2
