"""What is fuzzed: a target takes any bytes and ends within a second, with an answer or an error that is expected."""

import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import orjson
from google.protobuf.message import DecodeError

from serving.errors import ServingError
from serving.grpc import messages
from serving.grpc.stubs import inference_pb2 as pb
from serving.http import json_pieces, strict_json, v2_messages
from serving.http.compression import unpack
from serving.http.pictures import read_items
from serving.offline.plan import Plan, ReadOptions
from serving.offline.sources import FolderLabels, Source
from serving.preprocess import prepare
from tests.fuzz import seeds
from tests.serving.fakes import LIMITS

# Of processor time: the machine may be busy.
LIMIT_S = 1.0

MAX_PIXELS = 1_000_000
OPTIONS = ReadOptions("auto", MAX_PIXELS, FolderLabels([str(digit) for digit in range(10)]))


class TooSlow(AssertionError):
    """An input took longer than the limit."""


def _read_picture(data: bytes) -> bool:
    try:
        prepared = prepare(data, MAX_PIXELS)
    except ServingError:
        return False
    assert prepared.image.shape == (28, 28)
    return True


def _read_file(data: bytes) -> bool:
    """Score everything in a file; whatever is wrong with it is an item with an error."""
    good = 0
    with tempfile.NamedTemporaryFile(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as file:
        file.write(data)
        file.flush()
        for task in Plan([Source(0, Path(file.name))], OPTIONS):
            items = task.decode()
            count = len(items.names)
            assert items.images.shape == (count, 28, 28)
            assert len(items.labels) == len(items.ordinals) == count
            assert all(0 <= place < count for place in items.errors)
            good += count - len(items.errors)
    return good > 0


def _read_predict_body(data: bytes) -> bool:
    try:
        items = read_items(data, "multipart/form-data; boundary=edge", LIMITS)
    except ServingError:
        return False
    return any(not isinstance(item.content, ServingError) for item in items)


def _read_v2_body(data: bytes) -> bool:
    length = int.from_bytes(data[:2], "little")
    try:
        v2_messages.read_request(data[2:], None if length == 0xFFFF else str(length), LIMITS)
    except ServingError:
        return False
    return True


def _read_json(data: bytes) -> bool:
    """Parse JSON in pieces of a size that the first byte says, and in one go; both must find the same."""
    body = data[1:]
    try:
        strict_json.check_extent(body, LIMITS)
        with patch.object(json_pieces, "PIECE_BYTES", 1 + int.from_bytes(data[:1]) % 64):
            found = repr(json_pieces.loads(body))
    except ServingError:
        found = None
    try:
        expected = repr(orjson.loads(body))
        strict_json.refuse_repeated_keys(body)
    except (orjson.JSONDecodeError, ServingError):
        expected = None
    assert found == expected
    return found is not None


def _read_message(data: bytes) -> bool:
    try:
        messages.read_request(pb.ModelInferRequest.FromString(data), LIMITS.images)
    except (ServingError, DecodeError):  # what is no message at all, gRPC refuses itself
        return False
    return True


def _unpack(data: bytes) -> bool:
    try:
        unpack(data[1:], ("gzip", "deflate")[data[0] % 2] if data else "gzip", 100_000)
    except ServingError:
        return False
    return True


def _packed() -> seeds.Seeds:
    return [b"\0" + seeds.csv()[5], b"\1" + zlib.compress(b"a" * 5000)]


@dataclass(frozen=True)
class Target:
    """A reader and the inputs to begin with.

    Attributes:
        read: any bytes -> whether they hold anything good.
        seeds: valid inputs.
    """

    read: Callable[[bytes], bool]
    seeds: Callable[[], seeds.Seeds]

    def check(self, data: bytes) -> bool:
        """Read `data` once.

        Raises:
            TooSlow: it took longer than the limit.
        """
        started = time.process_time()
        good = self.read(data)
        seconds = time.process_time() - started
        if seconds > LIMIT_S:
            raise TooSlow(f"{seconds:.2f} s for {len(data)} bytes")
        return good


TARGETS = {
    "picture": Target(_read_picture, seeds.pictures),
    "idx": Target(_read_file, seeds.idx),
    "npy": Target(_read_file, seeds.npy),
    "csv": Target(_read_file, seeds.csv),
    "table": Target(_read_file, seeds.tables),
    "archive": Target(_read_file, seeds.archives),
    "predict": Target(_read_predict_body, seeds.predict_bodies),
    "v2_http": Target(_read_v2_body, seeds.v2_bodies),
    "json": Target(_read_json, seeds.json_texts),
    "v2_grpc": Target(_read_message, seeds.messages),
    "compressed": Target(_unpack, _packed),
}
