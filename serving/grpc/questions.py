"""The messages of health and reflection, which are read on the event loop.

Must not know: what is asked.
"""

from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from serving.heavy import INLINE_TEXT_BYTES

NO_QUESTION = f"this is no message of the call, or has more than {INLINE_TEXT_BYTES} bytes"


def reader(read: Callable[[bytes], Any] | None) -> Callable[[Any], Any]:
    """Return what reads messages; a handler without any takes bytes, however many, as they are.

    Without the limit, 32 MB of unknown fields took 4 s, and who watches the health had 33 MB kept for as long.
    """
    if read is None:
        return lambda data: data

    def read_small(data: bytes) -> Any:
        if len(data) > INLINE_TEXT_BYTES:
            raise DecodeError("too large")
        return read(data)

    return read_small
