"""What `benchmarks/attack.py` sends: each attack is one connection's work, again and again, in a process of its own.

Run by it: python benchmarks/attacks.py KIND SECONDS HTTP_PORT GRPC_PORT
"""

import contextlib
import io
import json
import os
import random
import socket
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import grpc
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from serving.grpc.stubs import inference_pb2 as pb
from tests.serving.grpc import strangers

GIGABYTE = 1_000_000_000
BLOCK = bytes(65_536)
# Just below MNIST_MAX_BODY_BYTES.
LIMIT = 33_000_000
# What all connections send together: a network of 1 Gbit/s.
BYTES_PER_S = 125_000_000
# No answer is waited for longer.
PATIENCE_S = 5.0

# Takes the ports of HTTP and gRPC.
Attack = Callable[[list[int]], None]


class Pace:
    """Lets bytes go no faster than `BYTES_PER_S`."""

    def __init__(self) -> None:
        self._lock, self._free_at = threading.Lock(), 0.0

    def wait(self, size: int) -> None:
        """Wait until `size` bytes may go."""
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + size / BYTES_PER_S
            wait_s = self._free_at - now
        time.sleep(wait_s)


pace = Pace()


def send(connection: socket.socket, data: bytes) -> None:
    """Send at the pace of the network."""
    for start in range(0, len(data), len(BLOCK)):
        piece = data[start : start + len(BLOCK)]
        pace.wait(len(piece))
        connection.sendall(piece)


def connect(port: int) -> socket.socket:
    """Return a connection to the service."""
    return socket.create_connection(("127.0.0.1", port), PATIENCE_S)


def post(port: int, path: str, body: bytes, *headers: str) -> None:
    """Send a request, and wait for the beginning of its answer."""
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(body)}", "connection: close", *headers]
    with connect(port) as connection:
        send(connection, "\r\n".join([*lines, "", ""]).encode() + body)
        connection.recv(65_536)


def trickle(port: int, head: bytes) -> None:
    """Send a byte at a time."""
    with connect(port) as connection:
        send(connection, head)
        while True:
            time.sleep(0.2)
            send(connection, b"x")


def pour(port: int, head: bytes, piece: bytes) -> None:
    """Send a gigabyte, or as much as is taken."""
    with connect(port) as connection:
        send(connection, head)
        for _ in range(GIGABYTE // len(piece)):
            send(connection, piece)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    """Return an image as a file of this form."""
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def stroke(side: int) -> bytes:
    """Return a PNG of a stroke."""
    image = Image.new("L", (side, side), 235)
    image.paste(20, (side // 2 - side // 14, side // 5, side // 2 + side // 14, side - side // 5))
    return encoded(image, "PNG")


def picture(mode: str, form: str, side: int, **options: object) -> bytes:
    """Return a picture of one colour."""
    colour = 200 if len(mode) < 3 else (200, 201, 202, 180)[: len(mode)]
    return encoded(Image.new(mode, (side, side), colour), form, **options)


def dot() -> bytes:
    """Return a PNG of 5x5 pixels, one of them black."""
    image = Image.new("L", (5, 5), 255)
    image.putpixel((2, 2), 0)
    return encoded(image, "PNG")


def form(content: bytes) -> bytes:
    """Return a form of as many pictures as are allowed."""
    part = b'--x\r\ncontent-disposition: form-data; name="a"; filename="a"\r\n\r\n'
    return (part + content + b"\r\n") * 2048 + b"--x--\r\n"


def json_pixels(images: int) -> bytes:
    """Return the largest JSON that is allowed, all of it good."""
    return json.dumps({"pixels": [[7] * 784] * images}, separators=(",", ":")).encode()


def tensor(images: int, **how: object) -> bytes:
    """Return the JSON of an inference request."""
    described = {"name": "images", "datatype": "UINT8", "shape": [images, 28, 28], **how}
    return json.dumps({"inputs": [described]}, separators=(",", ":")).encode()


def values(images: int) -> bytes:
    """Return a gRPC request of many images, each pixel a value of its own."""
    contents = pb.InferTensorContents(uint_contents=[7] * (images * 784))
    described = {"name": "images", "datatype": "UINT8", "shape": [images, 28, 28], "contents": contents}
    return pb.ModelInferRequest(model_name="mnist-cnn", inputs=[described]).SerializeToString()


def call(port: int, message: bytes) -> None:
    """Call ModelInfer with bytes that may be no message."""
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        ask = channel.unary_unary(MODEL_INFER.decode())
        for _ in range(5):
            pace.wait(len(message))
            with contextlib.suppress(grpc.RpcError):
                ask(message, timeout=PATIENCE_S)


def flood(port: int, data: bytes) -> None:
    """Send without reading."""
    with connect(port) as connection:
        send(connection, data)
        connection.recv(65_536)


def hold_calls(port: int) -> None:
    """Begin calls, and send none of their messages."""
    with strangers.begun(port, MODEL_INFER, 1000):
        time.sleep(PATIENCE_S)


def taken_back(calls: int) -> bytes:
    """Return what begins calls, and takes each back at once."""
    head, cancel = strangers.head(MODEL_INFER), (8).to_bytes(4)
    frames = [strangers.GREETING]
    for stream in range(1, 2 * calls, 2):
        frames.append(strangers.frame(strangers.HEADERS, strangers.END_HEADERS, stream, head))
        frames.append(strangers.frame(strangers.RST_STREAM, 0, stream, cancel))
    return b"".join(frames)


def posting(body: bytes, path: str = "/predict", *headers: str) -> Attack:
    """Return an attack that posts a body."""
    return lambda ports: post(ports[0], path, body, *headers)


def pouring(head: str, piece: bytes) -> Attack:
    """Return an attack that pours zeros behind a head."""
    return lambda ports: pour(ports[0], f"POST /predict HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n".encode(), piece)


def calling(message: bytes) -> Attack:
    """Return an attack that calls over gRPC."""
    return lambda ports: call(ports[1], message)


MODEL_INFER = b"/inference.GRPCInferenceService/ModelInfer"
INFER = "/v2/models/mnist-cnn/infer"
JSON_BYTES = "inference-header-content-length"
SLOW_HEAD = b"POST /predict HTTP/1.1\r\nx: "
SLOW_BODY = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n"
AHEAD = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n" * 1000
TAKEN_BACK = taken_back(20_000)
FORM = b"".join(b'--x\r\ncontent-disposition: form-data; name="a"\r\n\r\n1\r\n' for _ in range(30_000)) + b"--x--\r\n"

BOUNDARY = "content-type: multipart/form-data; boundary=x"
PIXELS = 2048 * 784
BINARY = tensor(2048, parameters={"binary_data_size": PIXELS})

# Each with its number of connections, and what makes it.
KINDS: dict[str, tuple[int, Callable[[], Attack]]] = {
    "slow heads": (400, lambda: lambda ports: trickle(ports[0], SLOW_HEAD)),
    "slow bodies": (400, lambda: lambda ports: trickle(ports[0], SLOW_BODY)),
    "connections": (8, lambda: lambda ports: connect(ports[0]).close()),
    "garbage": (8, lambda: lambda ports: flood(ports[0], random.randbytes(65_536))),
    "requests sent ahead": (8, lambda: lambda ports: flood(ports[0], AHEAD)),
    "a gigabyte, declared": (8, lambda: pouring(f"content-length: {GIGABYTE}", BLOCK)),
    "a gigabyte, chunked": (8, lambda: pouring("transfer-encoding: chunked", b"10000\r\n" + BLOCK + b"\r\n")),
    "bodies at the limit": (8, lambda: posting(random.randbytes(LIMIT))),
    "gzip bombs": (8, lambda: posting(zlib.compress(bytes(GIGABYTE // 10), 9), INFER, "content-encoding: deflate")),
    "forms of 30,000 parts": (8, lambda: posting(FORM, "/predict", BOUNDARY)),
    "forms of 2,048 pictures": (4, lambda: posting(form(stroke(512)), "/predict", BOUNDARY)),
    "forms of 2,048 dots": (4, lambda: posting(form(dot()), "/predict", BOUNDARY)),
    "pictures of 49 megapixels": (8, lambda: posting(picture("RGB", "PNG", 7000))),
    "WebP of 24 megapixels": (8, lambda: posting(picture("RGBA", "WEBP", 4900, lossless=True))),
    "JSON at the limit": (4, lambda: posting(json_pixels(2048))),
    "JSON of a megabyte": (4, lambda: posting(json_pixels(640))),
    "JSON of numbers and texts": (4, lambda: posting(b'{"pixels":[' + b'1,"a",' * 700_000 + b"1]}")),
    "a tensor as JSON": (4, lambda: posting(tensor(2048, data=[7] * PIXELS), INFER)),
    "a binary tensor": (4, lambda: posting(BINARY + bytes(PIXELS), INFER, f"{JSON_BYTES}: {len(BINARY)}")),
    "JSON beyond it": (4, lambda: posting(b'{"pixels": [' + b"[]," * 5_000_000 + b"[]]}")),
    "a tensor as gRPC values": (4, lambda: calling(values(2048))),
    "gRPC messages at the limit": (4, lambda: calling(random.randbytes(LIMIT))),
    "gRPC calls without a message": (8, lambda: lambda ports: hold_calls(ports[1])),
    "gRPC calls taken back": (8, lambda: lambda ports: flood(ports[1], TAKEN_BACK)),
}


def _fail(failed: threading.ExceptHookArgs) -> None:
    """End the process: without this connection it would be another attack."""
    threading.__excepthook__(failed)
    os._exit(1)


def main() -> None:
    """Attack until the time is over."""
    threading.excepthook = _fail
    kind, (seconds, *ports) = sys.argv[1], map(int, sys.argv[2:])
    connections, make = KINDS[kind]
    attack, stop = make(), time.monotonic() + seconds

    def go_on() -> None:
        while time.monotonic() < stop:
            with contextlib.suppress(OSError):
                attack(ports)

    for _ in range(connections):
        threading.Thread(target=go_on, daemon=True).start()
    print("ready", flush=True)
    time.sleep(seconds)


if __name__ == "__main__":
    main()
