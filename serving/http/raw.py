"""What is answered, as bytes, or raised where no app is asked.

Must not know: connections, or what a request asks for.
"""

import asyncio
from collections.abc import Iterable

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

Header = tuple[bytes, bytes]


class Refused(Exception):
    """A request whose head is not accepted; ends the parser's work."""


def header_lines(headers: Iterable[Header]) -> bytes:
    """Return headers as they are sent, each line ended."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def refusal(status: int, text: str, headers: Iterable[Header]) -> bytes:
    """Return an answer that ends its connection.

    Args:
        status: of HTTP, 400 and above.
        text: why, for the caller.
        headers: of every answer.
    """
    body = orjson.dumps({"error": text})
    own = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    if status == 429:
        own.append((b"retry-after", b"1"))
    return STATUS_LINE[status] + header_lines([*headers, *own]) + b"\r\n" + body


def refuse(transport: asyncio.Transport, status: int, text: str, headers: Iterable[Header]) -> None:
    """Send a refusal, and that nothing follows it."""
    transport.write(refusal(status, text, headers))
    if transport.can_write_eof():
        transport.write_eof()
