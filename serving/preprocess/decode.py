"""Bytes of a file -> an upright grey picture, whatever its format, depth, palette and transparency.

Must not know: digits.
"""

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import (  # noqa: F401  importing a plugin registers its format
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from serving.errors import TooLarge, UnreadablePicture
from serving.preprocess import colour, signature
from serving.preprocess.grey import Grey
from serving.preprocess.transparency import flatten

# Damaged metadata and the like: what matters of it ends as an error or not at all, and none belongs in the log.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

# What is broken is told to the caller.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

# `max_pixels` of `decode` takes its place; Pillow's own limit would warn in the log below it.
Image.MAX_IMAGE_PIXELS = None

# A JPEG is decoded at 1/2, 1/4 or 1/8 where the longer side stays above this.
DRAFT_SIDE_PIXELS = 800

# Other pictures are reduced after decoding, by a whole factor, where the longer side stays above this.
REDUCED_SIDE_PIXELS = 2000

# Times as many pixels of others that these may have. One of a WebP takes 16 bytes while it is decoded, one of another
# format 4 to 6; run-length BMPs are decoded by Python, a run at a time. Measured with Pillow 13.
WEIGHTS = {"webp": 2, "bmp_rle": 16}

# Of Pillow: grey of 1 or 8 bits; and what the names of those begin with that hold whole numbers or fractions.
GREY_MODES = {"1", "L", "LA", "La"}
DEEP_MODES = "I", "F"

# Of a picture that are converted at a time: 16 bytes of copies for each at most.
BAND_PIXELS = 1_000_000

# Of the tiles or strips of a TIFF, which its decoder takes as a whole into memory.
_TILE_WIDTH, _TILE_LENGTH, _ORIENTATION = 322, 323, 274

_UPRIGHT: dict[int, Callable[[Grey], Grey]] = {
    2: lambda grey: cv2.flip(grey, 1),
    3: lambda grey: cv2.rotate(grey, cv2.ROTATE_180),
    4: lambda grey: cv2.flip(grey, 0),
    5: cv2.transpose,
    6: lambda grey: cv2.rotate(grey, cv2.ROTATE_90_CLOCKWISE),
    7: lambda grey: cv2.flip(cv2.transpose(grey), -1),
    8: lambda grey: cv2.rotate(grey, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


@dataclass(frozen=True, slots=True)
class Picture:
    """An upright picture.

    Attributes:
        grey: uint8 (height, width), perhaps reduced.
        size: its full width and height.
        in_colour: its pixels have colours, though they may be greys.
    """

    grey: Grey
    size: tuple[int, int]
    in_colour: bool


class LargePicture(Exception):
    """It has more pixels than are to be decoded here; no error of whoever sent it."""


def decode(data: bytes, max_pixels: int, pixels_here: int | None = None) -> Picture:
    """Decode the first frame of a picture.

    Raises:
        LargePicture: it has more than `pixels_here`.
        UnreadablePicture: not an accepted format, or broken.
        TooLarge: more than `max_pixels`; found in the header, before anything is decoded.
        MemoryError: of this process.
    """
    with _open(data, max_pixels) as image:
        _check_place(image, pixels_here)
        return _read(image, data, "L", _to_grey)


def decode_colours(data: bytes, max_pixels: int) -> Picture:
    """Decode the first frame of a picture with the differences of its colours in place of its brightness.

    Raises:
        UnreadablePicture, TooLarge, MemoryError: as `decode`.
    """
    with _open(data, max_pixels) as image:
        return _read(image, data, None, _to_tones)


@contextlib.contextmanager
def _open(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """Give a picture of a size that is read; what fails while it is in use is told as a fault of the picture."""
    name = signature.identify(data)
    try:
        image = Image.open(io.BytesIO(data), formats=(name,))
        _check_size(image, max_pixels)
        yield image
    except (MemoryError, TooLarge, LargePicture):  # not a broken picture
        raise
    except Exception as error:  # Pillow's readers share no exception type
        raise UnreadablePicture(f"a broken {name} picture: {_explain(error)}") from error


def _explain(error: Exception) -> str:
    return str(error).splitlines()[0][:100] if str(error) and not isinstance(error, OSError) else "cannot be decoded"


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    max_pixels //= WEIGHTS.get(_decoder(image), 1)
    if width * height > max_pixels:
        raise TooLarge(f"the picture has {width}x{height} = {width * height} pixels; at most {max_pixels} are read")
    tags = getattr(image, "tag_v2", {})
    tile = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0)
    if all(isinstance(side, int) for side in tile) and math.prod(tile) > max_pixels:
        raise TooLarge(f"the picture has tiles of {tile[0]}x{tile[1]} pixels; at most {max_pixels} are read")


def _decoder(image: Image.Image) -> str:
    tile = getattr(image, "tile", None)
    return "webp" if image.format == "WEBP" else str(tile[0][0]) if tile else ""


def _check_place(image: Image.Image, pixels_here: int | None) -> None:
    """Refuse what is to be decoded elsewhere; a JPEG counts as reduced, unless all of it is there before it is."""
    reduced = image.format in ("JPEG", "MPO") and not image.info.get("progressive")
    if pixels_here is not None and math.prod(_draft_size(image.size) if reduced else image.size) > pixels_here:
        raise LargePicture


def _read(image: Image.Image, data: bytes, draft: str | None, convert: Callable[[Image.Image], Grey]) -> Picture:
    size = image.size
    in_colour = image.mode not in GREY_MODES and not image.mode.startswith(DEEP_MODES)
    if image.format in ("JPEG", "MPO"):
        image.draft(draft, _draft_size(size))
    # Before the orientation is looked for, which would hide that the pixels are broken.
    loaded = _load_webp(data) if image.format == "WEBP" else image
    loaded.load()
    orientation = _orientation(image)
    grey = convert(loaded)
    if orientation in _UPRIGHT:
        grey = _UPRIGHT[orientation](grey)
    return Picture(grey, size if orientation < 5 else (size[1], size[0]), in_colour)


def _load_webp(data: bytes) -> Image.Image:
    """Decode the first frame by OpenCV: Pillow lets nobody have the interpreter meanwhile, 0.2 s for 24 megapixels."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise OSError("cannot be decoded")
    return Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB))


def _draft_size(size: tuple[int, int]) -> tuple[int, int]:
    factor = min(DRAFT_SIDE_PIXELS / max(size), 1)
    return math.ceil(size[0] * factor), math.ceil(size[1] * factor)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except MemoryError:  # a picture that lies on its side would be read as it lies
        raise
    except Exception:  # broken metadata do not make the picture unreadable
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_grey(image: Image.Image) -> Grey:
    if image.mode.startswith(DEEP_MODES):
        return _scale_depth(image)
    if image.has_transparency_data:
        pixels = _in_colours(image, "RGBA")
        return flatten(cv2.cvtColor(pixels, cv2.COLOR_RGBA2GRAY), cv2.extractChannel(pixels, 3))
    if image.mode in ("L", "1"):
        return _in_bands(image, lambda band: np.asarray(_reduce(band, image.size, "L")))
    return _in_bands(image, lambda band: cv2.cvtColor(np.asarray(_reduce(band, image.size, "RGB")), cv2.COLOR_RGB2GRAY))


def _to_tones(image: Image.Image) -> Grey:
    if image.has_transparency_data:
        pixels = _in_colours(image, "RGBA")
        return flatten(colour.differences(pixels), cv2.extractChannel(pixels, 3))
    return colour.differences(_in_colours(image, "RGB"))


def _in_colours(image: Image.Image, mode: str) -> Grey:
    return _in_bands(image, lambda band: np.asarray(_reduce(band, image.size, mode)))


def _bands(image: Image.Image) -> Iterator[Image.Image]:
    """Yield the picture from top to bottom, in pieces so small that their copies do not count."""
    width, height = image.size
    factor = _factor(image.size)
    rows = max(BAND_PIXELS // width // factor, 1) * factor
    if rows >= height:
        yield image
        return
    for top in range(0, height, rows):
        yield image.crop((0, top, width, min(top + rows, height)))


def _in_bands(image: Image.Image, convert: Callable[[Image.Image], Grey]) -> Grey:
    bands = [convert(band) for band in _bands(image)]
    return np.concatenate(bands) if len(bands) > 1 else np.array(bands[0])


def _factor(size: tuple[int, int]) -> int:
    # Half the time of 50 megapixels.
    return max(max(size) // REDUCED_SIDE_PIXELS, 1)


def _reduce(band: Image.Image, size: tuple[int, int], mode: str) -> Image.Image:
    converted = band if band.mode == mode else band.convert(mode)
    factor = _factor(size)
    return converted.reduce(factor) if factor > 1 else converted


def _scale_depth(image: Image.Image) -> Grey:
    """Scale to 8 bits from the used range: 8, 10, 12, 14 or 16 bits of whole numbers, else lowest to highest."""
    extremes = [_extremes(np.asarray(band)) for band in _bands(image)]
    lowest, highest = min(low for low, _ in extremes), max(high for _, high in extremes)
    bits = next((bits for bits in (8, 10, 12, 14, 16) if highest < 2**bits), None)
    if image.mode != "F" and bits and lowest >= 0:
        lowest, highest = 0.0, 2.0**bits - 1
    factor = 255 / (highest - lowest) if highest > lowest else 0.0
    offset = np.float32(lowest)

    def scale(band: Image.Image) -> Grey:
        scaled: Grey = np.rint((np.asarray(band).astype(np.float32) - offset) * factor).astype(np.uint8)
        return scaled

    return _in_bands(image, scale)


def _extremes(values: npt.NDArray[np.generic]) -> tuple[float, float]:
    if not np.isfinite(values).all():
        raise ValueError("it has values that are no numbers")
    return float(values.min()), float(values.max())
