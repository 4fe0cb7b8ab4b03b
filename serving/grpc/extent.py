"""How much a message holds, found before protobuf makes an object of each of its fields, in one go.

33 MB of empty tensors, 16 million, kept the interpreter for 3 s; as many outputs ended the worker by its watchdog.
Must not know: what a request means.
Source: https://protobuf.dev/programming-guides/encoding/
"""

from collections import Counter
from collections.abc import Mapping
from typing import TypeAlias

from google.protobuf.message import DecodeError

from serving.errors import TooLarge
from serving.heavy import INLINE_TEXT_BYTES

# What may be large, by the numbers of the fields: a message with such fields in it, or the bytes for each pixel that a
# list of values takes at most; 0 for bytes as they are, raw tensors and pictures, which cost nothing to parse.
Large: TypeAlias = "Mapping[int, int | Large]"

# Of inference.proto: `raw_input_contents`, and in `inputs` the lists in `contents`. 255 is two bytes as a varint.
INFER_REQUEST: Large = {7: 0, 5: {5: {1: 1, 2: 2, 3: 2, 4: 2, 5: 2, 6: 4, 7: 8, 8: 0}}}
NOTHING: Large = {}

PIXELS = 28 * 28

# Of all else: names, parameters, the request's id.
MAX_OTHER_BYTES = 524_288

# Fields beside one for each picture; they are counted in 4 ms, and parsed in one.
MAX_FIELDS = 4_096

LONGEST_VARINT = 10
VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5


def check_extent(message: bytes, large: Large, max_images: int) -> None:
    """Refuse a message that holds more than a request has use for.

    Args:
        message: encoded.
        large: what may be large in it.
        max_images: of one request.

    Raises:
        TooLarge: says of what there is too much.
        DecodeError: it is no message; protobuf would parse what comes before.
    """
    if len(message) <= INLINE_TEXT_BYTES:
        return
    most_fields, fields, other = MAX_FIELDS + max_images, 0, len(message)
    lists: Counter[int] = Counter()
    rest = [(0, len(message), large)]
    while rest:
        position, stop, known = rest.pop()
        while position < stop:
            fields += 1
            if fields > most_fields:
                raise TooLarge(f"the message has more than {most_fields} fields; values come packed, or raw")
            number, start, position = _next_field(message, position)
            if position > stop:
                raise DecodeError("a field goes on behind the end of its message")
            inside = known.get(number)
            if isinstance(inside, int):
                other -= position - start
                lists[inside] += position - start
            elif inside is not None:
                rest.append((start, position, inside))
    if other > MAX_OTHER_BYTES:
        raise TooLarge(f"the message has {other} bytes beside its tensors; the limit is {MAX_OTHER_BYTES}")
    if any(size > pixel_bytes * PIXELS * max_images for pixel_bytes, size in lists.items() if pixel_bytes):
        raise TooLarge(f"the message has more values than {max_images} images, which is the limit of one request")


def _next_field(message: bytes, position: int) -> tuple[int, int, int]:
    """Return a field's number, where its content starts if it has a length, and where the field stops."""
    tag, start = _varint(message, position)
    kind = tag & 7
    if kind == BYTES:
        size, start = _varint(message, start)
        return tag >> 3, start, start + size
    stop = start + {EIGHT_BYTES: 8, FOUR_BYTES: 4}.get(kind, 0)
    # Without a length it is one value, in no list; a group's fields follow it, and are counted as others are.
    return 0, stop, _varint(message, start)[1] if kind == VARINT else stop


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for place, byte in enumerate(message[position : position + LONGEST_VARINT]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, position + place + 1
    raise DecodeError("a number does not end")
