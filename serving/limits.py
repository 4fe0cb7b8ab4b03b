"""How much one request may hold, so that what is refused is refused before it costs anything.

Must not know: transports.
"""

from typing import NamedTuple

from serving.settings import Settings


class Limits(NamedTuple):
    """The limits of one request.

    Attributes:
        images: pictures or images.
        json_depth: lists and objects in each other.
        json_values: values of a JSON body; a list or an object counts as `CONTAINER_VALUES`.
        part_header_bytes: one header line of a part of a form.
    """

    images: int
    json_depth: int
    json_values: int
    part_header_bytes: int

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        """Return the limits that the settings ask for."""
        return cls(
            settings.max_images, settings.max_json_depth, settings.max_json_values, settings.max_part_header_bytes
        )


# What an empty list takes beside a small integer: 64 bytes to 4, and the garbage collector's attention.
CONTAINER_VALUES = 16
