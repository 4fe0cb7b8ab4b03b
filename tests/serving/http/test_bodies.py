import asyncio
import random
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from serving.errors import InvalidInput, QueueFull, TooLarge
from serving.heavy import alone
from serving.http import pictures, v2_messages
from serving.http.bodies import BodyReader
from serving.http.errors import BodyTimeout, CutOff
from serving.settings import Settings
from tests.serving.http.app import App

Receive = Callable[[], Awaitable[dict[str, Any]]]


def chunk(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def receive_from(*messages: dict[str, Any]) -> Receive:
    waiting = list(messages)

    async def receive() -> dict[str, Any]:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    return receive


def request(receive: Receive, **headers: str) -> Request:
    encoded = [
        (name.replace("_", "-").encode(), value.encode(errors="surrogateescape")) for name, value in headers.items()
    ]
    return Request({"type": "http", "headers": encoded}, receive)  # type: ignore[arg-type]


def reader(max_bytes: int = 10, timeout_s: float = 1.0, max_pending_bytes: int = 10_000) -> BodyReader:
    limits = {"max_body_bytes": max_bytes, "body_timeout_s": timeout_s, "max_pending_bytes": max_pending_bytes}
    return BodyReader(Settings().model_copy(update=limits))


async def read_body(request: Request, max_bytes: int, timeout_s: float) -> bytes:
    return await reader(max_bytes, timeout_s).read(request)


async def test_chunks_are_put_together():
    receive = receive_from(chunk(b"ab"), chunk(b"c"), chunk(b"", more=False))
    assert await read_body(request(receive), 10, 1.0) == b"abc"


async def test_a_large_body_is_put_together_while_another_is_worked_on():
    end = threading.Event()
    work = asyncio.ensure_future(alone(end.wait))
    whole = random.Random(0).randbytes(3_000_000)
    messages = [chunk(whole[:1_500_000]), chunk(whole[1_500_000:], more=False)]
    body = await asyncio.wait_for(reader(4_000_000, 10.0, 10**7).read(request(receive_from(*messages))), 10)
    assert body == whole
    end.set()
    assert await work


async def test_a_body_of_exactly_the_limit_is_read():
    assert await read_body(request(receive_from(chunk(b"abc", more=False)), content_length="3"), 3, 1.0) == b"abc"


async def test_a_declared_length_over_the_limit_is_refused_unread():
    async def never() -> dict[str, Any]:
        raise AssertionError("it was read")

    with pytest.raises(CutOff, match="limit of 3 bytes") as caught:
        await read_body(request(never, content_length="4"), 3, 1.0)
    assert isinstance(caught.value.error, TooLarge)


async def test_an_undeclared_length_is_cut_at_the_limit():
    read = []

    async def endless() -> dict[str, Any]:
        read.append(1)
        return chunk(b"\0" * 100)

    with pytest.raises(CutOff):
        await read_body(request(endless), 1000, 1.0)
    assert len(read) == 11


async def test_a_single_chunk_over_the_limit_is_refused():
    with pytest.raises(CutOff):
        await read_body(request(receive_from(chunk(b"abcd", more=False))), 3, 1.0)


async def test_a_body_that_does_not_arrive_is_given_up():
    with pytest.raises(CutOff) as caught:
        await read_body(request(receive_from(chunk(b"a"))), 10, 0.01)
    assert isinstance(caught.value.error, BodyTimeout)


async def test_a_slow_body_is_given_up_however_steady_it_is():
    async def drip() -> dict[str, Any]:
        await asyncio.sleep(0.004)
        return chunk(b"a")

    with pytest.raises(CutOff, match="did not arrive within"):
        await read_body(request(drip), 10_000, 0.02)


async def test_what_a_body_unpacks_to_takes_room_until_it_is_answered():
    bodies, answer = reader(max_pending_bytes=150), asyncio.Event()

    async def work(size: int) -> None:
        bodies.hold(size)
        await answer.wait()

    working = asyncio.ensure_future(work(100))
    await asyncio.sleep(0)
    with pytest.raises(QueueFull, match="bodies of 150 bytes are on the way"):
        await asyncio.ensure_future(work(51))
    await asyncio.sleep(0)
    assert bodies.pending == 100
    answer.set()
    await working
    await asyncio.sleep(0)
    assert bodies.pending == 0


async def test_there_is_room_for_so_many_bodies_at_once_and_each_keeps_its_place_until_it_is_answered():
    bodies = reader(max_bytes=100, timeout_s=5.0, max_pending_bytes=150)
    answer = asyncio.Event()

    async def work(size: int) -> int:
        body = await bodies.read(request(receive_from(chunk(b"a" * size), chunk(b"", more=False))))
        await answer.wait()
        return len(body)

    slow = asyncio.ensure_future(bodies.read(request(receive_from(chunk(b"a" * 80)))))
    working = asyncio.ensure_future(work(70))
    await asyncio.sleep(0.01)
    with pytest.raises(CutOff, match="bodies of 150 bytes are on the way") as caught:
        await asyncio.ensure_future(work(1))
    assert isinstance(caught.value.error, QueueFull)
    assert bodies.pending == 150
    slow.cancel()
    await asyncio.gather(slow, return_exceptions=True)
    assert bodies.pending == 70
    answer.set()
    assert await working == 70
    assert await asyncio.ensure_future(work(100)) == 100
    await asyncio.sleep(0)
    assert bodies.pending == 0


async def test_a_large_body_in_any_parts_is_put_together_as_it_was():
    whole = random.Random(0).randbytes(3_000_000)
    for part in (700, 262_144, 1_000_000):
        parts = [chunk(whole[start : start + part]) for start in range(0, len(whole), part)]
        bodies = reader(max_bytes=len(whole), timeout_s=5.0, max_pending_bytes=10 * len(whole))
        assert await bodies.read(request(receive_from(*parts, chunk(b"", more=False)))) == whole


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png", 0),
        (b"\x89PNG\r\n\x1a\n", "application/json", 0),
        (b'{"images": []}', "", 14),
        (b" [1]", "", 4),
        (b"--x\r\n", "", 5),
        (b"preamble", "multipart/form-data; boundary=x", 8),
        (b"preamble", "Multipart/Form-Data; boundary=x", 8),
        (b"", "", 0),
    ],
)
def test_a_picture_is_no_text(body: bytes, content_type: str, expected: int):
    assert pictures.text_bytes(body, content_type) == expected


@pytest.mark.parametrize(
    ("size", "json_bytes", "expected"),
    [
        (1000, None, 1000),
        (1000, "0", 0),
        (1000, "90", 90),
        (1000, "\u00b2", 0),
        (1000, "9" * 5000, 0),
        (2_000_000, "90", 2_000_000),
    ],
)
def test_a_tensor_is_text_where_it_is_json_or_large(size: int, json_bytes: str | None, expected: int):
    assert v2_messages.text_bytes(bytes(size), json_bytes) == expected


async def test_a_caller_who_leaves_in_the_middle_is_noticed():
    with pytest.raises(ClientDisconnect):
        await read_body(request(receive_from(chunk(b"a"), {"type": "http.disconnect"})), 10, 1.0)


@pytest.mark.parametrize("length", ["-1", "abc", "1.5", "\u0663", "\udcb2"])  # the last is the byte of a superscript 2
async def test_a_length_that_is_no_number_is_refused(length: str):
    with pytest.raises(InvalidInput):
        await read_body(request(receive_from(), content_length=length), 10, 1.0)


async def test_the_answers_to_bad_bodies_close_the_connection(models: Path, executor: ThreadPoolExecutor):
    app = App(models, executor, max_body_bytes=1024, body_timeout_s=0.5)
    await app.catalogue.start()
    status, content = await app.call([], content_length="1025")
    assert (status, app.headers["connection"]) == (413, "close")
    assert content == {"error": "the body is larger than the limit of 1024 bytes"}
    status, _ = await app.call([chunk(b"a" * 600), chunk(b"a" * 600)])
    assert (status, app.headers["connection"]) == (413, "close")
    assert app.value("rejected_total", reason="too_large") == 2
