"""What a /predict body holds: a picture, a form with pictures, or JSON. The bytes decide, not the declared type.

Must not know: models, how a picture is prepared.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.errors import InvalidInput, ServingError, TooLarge, UnreadablePicture
from serving.http.forms import boundary_of, read_form
from serving.http.strict_json import read_json
from serving.limits import Limits

Pixels = npt.NDArray[np.uint8]

JSON_KEYS = ("images", "pixels")

# JSON that is no object, or in an encoding that JSON does not allow (RFC 8259, section 8.1); no picture begins so.
OTHER_JSON = re.compile(rb'\s{0,9}(?:null|true|false|NaN|"|-?\d|\xef\xbb\xbf|\xff\xfe|\xfe\xff)')

# RFC 2397; the declared type is not looked at, nor the parameters behind it.
DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
OTHER_URL = re.compile(r"\s{0,9}(?:[a-z][a-z0-9+.-]{1,20}:)?//", re.IGNORECASE)


@dataclass(slots=True)
class Item:
    """One picture of a request.

    Attributes:
        source: its file name, or its place in the request from 0.
        content: encoded picture, or uint8 (28, 28), 0 = paper, or what is wrong with it.
    """

    source: str | int
    content: bytes | Pixels | ServingError


def text_bytes(body: bytes, content_type: str) -> int:
    """Return how much of a body has to be parsed: all of a form or of JSON, nothing of a picture."""
    is_form = "multipart/" in content_type.lower()
    return len(body) if is_form or body[:1] in (b"{", b"[", b"-") or body[:1].isspace() else 0


def read_items(body: bytes, content_type: str, limits: Limits) -> list[Item]:
    """Return the pictures of a body, in their order.

    Raises:
        InvalidInput: a malformed form or JSON.
        TooLarge: more than the limits allow.
    """
    boundary = boundary_of(content_type, body)
    if boundary is not None:
        parts = read_form(body, boundary, limits.images, limits.part_header_bytes)
        return [Item(part.name or place, _refuse_url(part.data)) for place, part in enumerate(parts)]
    # A picture begins with no white space, and is not copied; a pattern took half a second for 33 MB of blanks.
    if body.lstrip()[:1] in (b"{", b"["):
        return _read_json(body, limits)
    if not body or body.isspace():
        raise InvalidInput(
            'the body is empty; expected a picture, a form with files, or JSON {"images": [base64, ...]}'
        )
    if "json" in content_type and OTHER_JSON.match(body):
        raise InvalidInput(f"the body is declared as {content_type[:80]}, but is no JSON object")
    return [Item(0, _refuse_url(body))]


def _refuse_url(data: bytes) -> bytes | ServingError:
    if len(data) < 2048 and OTHER_URL.match(data.decode("latin-1")):
        return UnreadablePicture("this is a URL; URLs are not fetched, send the picture itself")
    return data


def _read_json(body: bytes, limits: Limits) -> list[Item]:
    content, only_numbers = read_json(body, limits)
    if not isinstance(content, dict) or len(content) != 1 or next(iter(content)) not in JSON_KEYS:
        raise InvalidInput('expected {"images": [base64, ...]} or {"pixels": 28x28 integers 0 to 255, or several}')
    if "images" in content:
        return _read_images(content["images"], limits.images)
    images = read_pixels(content["pixels"], limits.images, only_numbers=only_numbers)
    return [Item(place, image) for place, image in enumerate(images)]


def _read_images(images: object, max_images: int) -> list[Item]:
    if not isinstance(images, list):
        raise InvalidInput("images: expected a list of base64 texts")
    if len(images) > max_images:
        raise TooLarge(f"images: {len(images)} of them, the limit is {max_images}")
    for place, text in enumerate(images):
        if not isinstance(text, str):
            raise InvalidInput(f"images[{place}]: expected a base64 text, got {type(text).__name__}")
    return [Item(place, _decode(text)) for place, text in enumerate(images)]


def _decode(text: str) -> bytes | ServingError:
    start = DATA_URL.match(text)
    if start is None and OTHER_URL.match(text[:64]):
        return UnreadablePicture("this is a URL; URLs are not fetched, send the picture itself")
    try:
        return base64.b64decode(text[start.end() if start else 0 :], validate=True)
    except (binascii.Error, ValueError) as error:
        return UnreadablePicture(f"not base64: {error}")


def read_pixels(values: object, max_images: int, *, only_numbers: bool) -> npt.NDArray[np.uint8]:
    """Return images from nested or flat lists of integers: 28x28, 784, or a list of either.

    Args:
        values: whatever stood in the request.
        max_images: the limit.
        only_numbers: the caller knows that `values` holds lists, integers and finite floats, nothing else.

    Returns:
        uint8, shape (N, 28, 28), N >= 0.

    Raises:
        InvalidInput: another form, or a value that is no integer from 0 to 255.
        TooLarge: more than `max_images`.
    """
    rows = _rows(values)
    if len(rows) > max_images:
        raise TooLarge(f"pixels: {len(rows)} images, the limit is {max_images}")
    if not rows:
        return np.empty((0, 28, 28), np.uint8)
    pixels = b"".join([_image(row, place, only_numbers=only_numbers) for place, row in enumerate(rows)])
    return np.frombuffer(pixels, np.uint8).reshape(-1, 28, 28)


def _rows(values: object) -> list[list[object]]:
    """Return one list, flat or of 28 rows, for each image."""
    if not isinstance(values, list):
        raise InvalidInput("pixels: expected a list of 28 rows of 28 integers, of 784 integers, or of such lists")
    if not values:
        return []
    first = values[0]
    if not isinstance(first, list):
        return [values]
    # 28 rows of 28 integers are one image; 28 lists of anything else are 28 images.
    if len(values) == 28 and len(first) == 28 and not isinstance(first[0], list):
        return [values]
    return values


def _image(row: object, place: int, *, only_numbers: bool) -> bytes:
    where = f"pixels, image {place}"
    if not isinstance(row, list) or len(row) not in (28, 784):
        found = f"{len(row)} values" if isinstance(row, list) else type(row).__name__
        raise InvalidInput(f"{where}: expected 28 rows of 28 integers or 784 integers, got {found}")
    flat = row if len(row) == 784 else _flatten(row, where)
    try:
        # It checks type and range as well, all in 3 us, and takes true for 1.
        pixels = bytes(flat)
    except (TypeError, ValueError):
        raise _wrong_values(flat, where) from None
    if not only_numbers and set(map(type, flat)) != {int}:
        raise _wrong_values(flat, where)
    return pixels


def _wrong_values(flat: list[Any], where: str) -> InvalidInput:
    if wrong := set(map(type, flat)) - {int}:
        kind = min(each.__name__ for each in wrong)
        return InvalidInput(f"{where}: expected integers from 0 (paper) to 255 (ink), got {kind}")
    return InvalidInput(f"{where}: expected integers from 0 to 255, got {min(flat)} to {max(flat)}")


def _flatten(rows: list[object], where: str) -> list[int]:
    flat: list[int] = []
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != 28:
            found = f"{len(row)} values" if isinstance(row, list) else type(row).__name__
            raise InvalidInput(f"{where}, row {number}: expected 28 integers, got {found}")
        flat += row
    return flat
