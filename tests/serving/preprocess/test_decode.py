import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from serving.errors import UnreadablePicture
from serving.preprocess import prepare
from serving.preprocess.decode import decode
from tests.pictures import encode, png

MAX_PIXELS = 50_000_000


def looks_like(data: bytes, image: Any) -> bool:
    """Whether the prepared digit is the same but for the blur of a lossy format, which may shift it by a pixel."""
    found = prepare(data).image.astype(int)
    shifts = [np.roll(found, shift, (0, 1)) for shift in ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))]
    return min(float(np.abs(shifted - image.astype(int)).mean()) for shifted in shifts) < 4


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "MPO"])
@pytest.mark.parametrize("mode", ["L", "RGB", "1", "P"])
def test_every_format_and_mode_gives_the_same_digit(form: str, mode: str, large: Any) -> None:
    picture = Image.fromarray(large)
    if form in ("JPEG", "WEBP", "MPO") and mode in ("1", "P"):
        picture = picture.convert(mode).convert("L")
    else:
        picture = picture.convert(mode)
    assert looks_like(encode(picture, form), prepare(png(large)).image)


def test_a_cmyk_jpeg_is_read(large: Any) -> None:
    picture = Image.fromarray(large).convert("RGB").convert("CMYK")
    assert looks_like(encode(picture, "JPEG", quality=95), prepare(png(large)).image)


def test_an_inverted_cmyk_jpeg_of_adobe_is_read(large: Any) -> None:
    """Pillow writes the Adobe marker and inverted values, as Photoshop does; without the marker they are plain."""
    data = encode(Image.fromarray(large).convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data
    assert decode(data, MAX_PIXELS).grey[5, 5] > 200


@pytest.mark.parametrize(("side", "decoded"), [(1600, 800), (799, 799), (800, 800), (1599, 1599), (3201, 801)])
def test_of_a_large_jpeg_no_more_is_decoded_than_its_strokes_need(side: int, decoded: int) -> None:
    picture = decode(encode(Image.new("L", (side, 40), 255), "JPEG"), MAX_PIXELS)
    assert (picture.size, picture.grey.shape[1]) == ((side, 40), decoded)


@pytest.mark.parametrize("step", [(Image, "open"), (Image.Image, "load"), (Image.Image, "getexif")])
def test_a_want_of_memory_is_no_fault_of_the_picture(
    step: tuple[Any, str], large: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def want(*_: object, **__: object) -> None:
        raise MemoryError

    data = encode(large, "BMP")
    monkeypatch.setattr(*step, want)
    with pytest.raises(MemoryError):
        decode(data, MAX_PIXELS)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("factor", [257, 16, 1])
def test_sixteen_bits_are_scaled_by_their_used_range(form: str, factor: int, seven: Any) -> None:
    """16 bits, a scanner's 12 and 8 bits in a 16-bit file: 255 becomes 65,535, 4,080 or 255."""
    data = encode(Image.fromarray(seven.astype(np.uint16) * factor), form)
    assert np.abs(prepare(data).image.astype(int) - seven).max() <= (1 if factor == 16 else 0)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_the_used_range_is_that_of_the_largest_value(bits: int) -> None:
    white = decode(png(np.array([[0, 2**bits - 1]], np.uint16)), MAX_PIXELS).grey
    assert white.tolist() == [[0, 255]]
    if bits < 16:
        more = 16 if bits == 14 else bits + 2
        grey = decode(png(np.array([[0, 2**bits]], np.uint16)), MAX_PIXELS).grey
        assert grey.tolist() == [[0, round(255 * 2**bits / (2**more - 1))]]


def test_a_big_endian_tiff_is_read(seven: Any) -> None:
    values = (seven.astype(">u2") * 257).tobytes()
    tags = [(256, 3, 28), (257, 3, 28), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 3, 28)]
    tags.append((279, 4, len(values)))
    entries = b"".join(
        struct.pack(">HHI", tag, kind, 1) + (struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value))
        for tag, kind, value in tags
    )
    data = b"MM\0*" + struct.pack(">I", 8 + len(values)) + values
    data += struct.pack(">H", len(tags)) + entries + struct.pack(">I", 0)
    assert (prepare(data).image == seven).all()


def test_a_tiff_of_64_bit_offsets_is_read(seven: Any) -> None:
    data = encode(Image.fromarray(seven), "TIFF", big_tiff=True)
    assert data[:4] == b"II+\0"
    assert (prepare(data).image == seven).all()


def test_floats_and_32_bits_are_scaled_from_lowest_to_highest(seven: Any) -> None:
    for values in (seven / 255.0, seven.astype(int) * 1000 - 5000):
        data = encode(Image.fromarray(values.astype(np.float32 if values.dtype == float else np.int32)), "TIFF")
        assert np.abs(prepare(data).image.astype(int) - seven).max() <= 1


def test_a_float_picture_with_no_numbers_is_refused() -> None:
    with pytest.raises(UnreadablePicture, match="no numbers"):
        decode(encode(Image.fromarray(np.full((9, 9), np.nan, np.float32)), "TIFF"), MAX_PIXELS)


def _transparent(large: Any, mode: str, ink: int, clear: int) -> Image.Image:
    strokes = 235 - large
    alpha = np.where(strokes > 100, 255, 0).astype(np.uint8)
    grey = np.where(alpha > 0, ink, clear).astype(np.uint8)
    if mode == "P":
        picture = Image.fromarray(np.where(alpha > 0, 1, 0).astype(np.uint8), "L").convert("P")
        picture.putpalette([clear] * 3 + [ink] * 3)
        picture.info["transparency"] = 0
        return picture
    bands = [Image.fromarray(band) for band in ([grey, alpha] if mode == "LA" else [grey, grey, grey, alpha])]
    return Image.merge(mode, bands)


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize(("ink", "clear"), [(0, 0), (255, 255), (0, 255), (255, 0), (60, 60)])
def test_ink_on_a_transparent_canvas_is_seen_in_any_colour(mode: str, ink: int, clear: int, large: Any) -> None:
    data = encode(_transparent(large, mode, ink, clear), "PNG")
    binary = np.where(235 - large > 100, 0, 255).astype(np.uint8)
    assert looks_like(data, prepare(png(binary)).image)
    assert prepare(data).polarity == ("light_on_dark" if ink == 255 else "dark_on_light")


def test_a_picture_with_transparent_corners_keeps_its_own_paper(large: Any) -> None:
    alpha = np.full_like(large, 255)
    alpha[:20, :20] = 0
    data = png(np.dstack([large, large, large, alpha]))
    assert looks_like(data, prepare(png(large)).image)


def test_an_opaque_alpha_channel_changes_nothing(large: Any) -> None:
    assert (prepare(png(np.dstack([large] * 3 + [np.full_like(large, 255)]))).image == prepare(png(large)).image).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_every_orientation_gives_the_same_upright_digit(orientation: int, form: str, large: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    undo = {5: Image.Transpose.TRANSPOSE, 7: Image.Transpose.TRANSVERSE}
    undo |= {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM}
    undo |= {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    stored = Image.fromarray(large)
    stored = stored.transpose(undo[orientation]) if orientation in undo else stored
    data = encode(stored.convert("RGB"), form, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert upright.size == (210, 280)
    prepared = prepare(data)
    assert prepared.size == (210, 280)
    assert looks_like(data, prepare(png(large)).image)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("lossless", [True, False])
def test_a_webp_is_decoded_as_pillow_would(mode: str, lossless: bool, large: Any) -> None:
    image = Image.merge(mode, [Image.fromarray(np.roll(large, 9 * channel)) for channel in range(len(mode))])
    data = encode(image, "WEBP", lossless=lossless)
    again = encode(Image.open(io.BytesIO(data)), "PNG")
    assert (decode(data, MAX_PIXELS).grey == decode(again, MAX_PIXELS).grey).all()


def test_of_a_webp_that_is_broken_only_its_sender_hears(large: Any, capfd: pytest.CaptureFixture[str]) -> None:
    data = encode(Image.fromarray(large).convert("RGB"), "WEBP", lossless=True)
    for broken in (data[: len(data) // 2], data[:40] + b"\xff" * (len(data) - 40)):
        with pytest.raises(UnreadablePicture, match="a broken WEBP picture: cannot be decoded"):
            decode(broken, MAX_PIXELS)
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")
def test_broken_metadata_do_not_make_a_picture_unreadable(large: Any) -> None:
    data = encode(Image.fromarray(large), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert looks_like(data, prepare(png(large)).image)


def test_the_first_of_several_frames_counts(large: Any) -> None:
    first, second = Image.fromarray(large), Image.fromarray(np.full_like(large, 255))
    for form in ("GIF", "TIFF", "WEBP", "PNG", "MPO"):
        data = encode(first, form, save_all=True, append_images=[second])
        assert looks_like(data, prepare(png(large)).image)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (bytes.fromhex("0000001866747970") + b"heic" + bytes(20), "HEIC"),
        (bytes.fromhex("0000001866747970") + b"avif" + bytes(20), "AVIF"),
        (bytes.fromhex("0000001866747970") + b"isom" + bytes(20), "MP4"),
        (b"%PDF-1.7", "PDF"),
        (b"8BPS\0\1", "PSD"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"SIMPLE  =                    T", "FITS"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "EPS"),
        (b"  <svg xmlns='x'/>", "SVG"),
        (b"RIFF\0\0\0\0WAVE", "RIFF"),
        (b"http://localhost/x.png", "URL"),
        (b"", "no bytes"),
        (b"\1\2\3\4", "unknown format that begins with 01 02 03 04"),
    ],
)
def test_another_format_is_named_with_the_accepted_ones(data: bytes, name: str) -> None:
    with pytest.raises(UnreadablePicture, match=name) as caught:
        prepare(data)
    assert "PNG, JPEG, GIF, BMP, TIFF, WebP" in str(caught.value)


def test_the_format_is_found_by_content(large: Any) -> None:
    with pytest.raises(UnreadablePicture, match="a broken PNG picture"):
        prepare(b"\x89PNG\r\n\x1a\n" + encode(large, "BMP"))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_half_a_file_is_an_error(form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    data = encode(noise, form)
    with pytest.raises(UnreadablePicture, match="broken"):
        prepare(data[: len(data) // 2])


def test_a_wrong_checksum_is_an_error(large: Any) -> None:
    data = bytearray(png(large))
    data[data.index(b"IDAT") + 30] ^= 0xFF
    with pytest.raises(UnreadablePicture):
        prepare(bytes(data))
