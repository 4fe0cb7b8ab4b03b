"""Calls that no gRPC client would make, frame by frame.

Source: RFC 9113, section 4 (frames), RFC 7541, section 6.2.2 (fields), gRPC's PROTOCOL-HTTP2.md.
"""

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

DATA, HEADERS, RST_STREAM, SETTINGS = 0, 1, 3, 4
END_STREAM, END_HEADERS = 1, 4
EMPTY_MESSAGE = bytes(5)

# What follows the path of a call, and the status that the call then ends with.
STRANGE: list[tuple[bytes, tuple[tuple[bytes, bytes], ...], bytes]] = [
    (b"\xff", (), b"12"),
    (b"", ((b"x-id", b"J\xfcrgen"),), b"0"),
    (b"", ((b"grpc-encoding", b"zstd"),), b"13"),
    (b"", ((b"grpc-timeout", b"soon"),), b"13"),
]


def status(code: bytes) -> bytes:
    """Return the field that tells the status of a call."""
    return field(b"grpc-status", code)[1:]


def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return len(content).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + content


# What a client sends first: RFC 9113, section 3.4.
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, b"")


def field(name: bytes, value: bytes) -> bytes:
    """Return a header field, neither compressed nor noted; up to 126 bytes each."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def head(path: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """Return the fields of a call."""
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"x")]
    fields += [(b"content-type", b"application/grpc"), (b"te", b"trailers"), *more]
    return b"".join(field(*each) for each in fields)


@contextmanager
def begun(port: int, path: bytes, count: int) -> Iterator[None]:
    """Begin calls on one connection, and send none of their messages."""
    with socket.create_connection(("127.0.0.1", port), 10) as stranger:
        fields = head(path)
        heads = [frame(HEADERS, END_HEADERS, 2 * number + 1, fields) for number in range(count)]
        stranger.sendall(GREETING + b"".join(heads))
        yield


def call(port: int, path: bytes, *more: tuple[bytes, bytes], tls: ssl.SSLContext | None = None) -> bytes:
    """Return what the server sends until it has ended the stream or the connection."""
    received = b""
    with ExitStack() as stack:
        stranger = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
        if tls:
            tls.set_alpn_protocols(["h2"])
            stranger = stack.enter_context(tls.wrap_socket(stranger, server_hostname="127.0.0.1"))
        stranger.sendall(GREETING + frame(HEADERS, END_HEADERS, 1, head(path, *more)))
        stranger.sendall(frame(DATA, END_STREAM, 1, EMPTY_MESSAGE))
        while not ended(received) and (chunk := stranger.recv(65536)):
            received += chunk
    return received


def ended(received: bytes) -> bool:
    """Say whether a frame ends the stream."""
    while len(received) >= 9:
        length, kind, flags = int.from_bytes(received[:3]), received[3], received[4]
        if len(received) < 9 + length:
            return False
        if kind == RST_STREAM or (kind in (DATA, HEADERS) and flags & END_STREAM):
            return True
        received = received[9 + length :]
    return False
