import asyncio
import io
import itertools
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from serving.errors import DeadlineExceeded, NotReady, QueueFull, UnreadablePicture
from serving.preparing import SMALL_BYTES, Preparer
from serving.preprocess import Prepared, prepare
from tests.serving.fakes import FakeClock


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


def drawing(size: int) -> bytes:
    noisy = np.random.default_rng(size).integers(200, 256, (size, size), np.uint8)
    cv2.line(noisy, (size // 2, size // 5), (size // 2, 4 * size // 5), 0, max(2, size // 12))
    return cv2.imencode(".png", noisy)[1].tobytes()


async def test_each_picture_is_prepared_or_says_what_is_wrong_in_its_order(executor: ThreadPoolExecutor):
    small, large = drawing(20), drawing(300)
    assert len(small) < SMALL_BYTES < len(large)
    for pictures in ([small, b"x"], [large, b"x", small] * 5):
        results = await Preparer(executor, executor, 10**6, 100).prepare(pictures)
        kinds = [Prepared if picture != b"x" else UnreadablePicture for picture in pictures]
        assert [type(result) for result in results] == kinds


async def test_small_pictures_behind_one_of_many_pixels_keep_their_place(executor: ThreadPoolExecutor):
    buffer = io.BytesIO()
    Image.new("1", (400, 400), 1).save(buffer, "PNG")
    pictures = [drawing(14), buffer.getvalue(), drawing(12)]
    assert sum(map(len, pictures)) <= SMALL_BYTES
    results = await Preparer(executor, executor, 10**6, 100, clock=FakeClock()).prepare(pictures)
    assert [result.size[0] for result in results if isinstance(result, Prepared)] == [14, 400, 12]


def test_in_the_thread_nothing_is_begun_after_the_deadline(executor: ThreadPoolExecutor):
    clock = FakeClock()
    preparer = Preparer(executor, executor, 10**6, 100, clock=clock)
    with pytest.raises(DeadlineExceeded):
        preparer._prepare_all([drawing(20)], clock.now, None)
    assert preparer.running_since is None


def test_of_pictures_in_threads_the_one_that_was_begun_first_counts(executor: ThreadPoolExecutor):
    preparer = Preparer(executor, executor, 10**6, 100)
    preparer._begun |= {1: 5.0, 2: 3.0, 3: 4.0}
    assert preparer.running_since == 3.0


async def test_no_pictures_are_nothing_to_do(executor: ThreadPoolExecutor):
    assert await Preparer(executor, executor, 10**6, 1).prepare([]) == []


async def test_more_pictures_than_there_is_room_for_are_refused(executor: ThreadPoolExecutor):
    preparer, leave = Preparer(executor, executor, 10**6, 2), Event()
    executor.submit(leave.wait, 20)
    waiting = asyncio.ensure_future(preparer.prepare([drawing(300)] * 2))
    await asyncio.sleep(0)
    with pytest.raises(QueueFull, match="there is room for 2"):
        await preparer.prepare([drawing(300)] * 2)
    leave.set()
    assert len(await waiting) == 2
    assert len(await preparer.prepare([drawing(300)] * 2)) == 2


async def test_many_pictures_of_one_request_neither_go_before_nor_shut_out_those_of_others(
    executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
):
    preparer, order = Preparer(executor, executor, 10**6, 100), []
    one, two, little = drawing(300), drawing(310), drawing(320)
    names = {one: "one", two: "two", little: "little"}
    monkeypatch.setattr("serving.preparing.prepare", lambda picture, *_: order.append(names[picture]) or picture)
    many = [asyncio.ensure_future(preparer.prepare([picture] * 100)) for picture in (one, two)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFull, match="100 pictures wait to be prepared; there is room for 100"):
        await many[1]
    assert await preparer.prepare([little]) == [little]
    assert order.index("little") <= 2
    assert await many[0] == [one] * 100


async def test_large_requests_take_turns(executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch):
    preparer, order = Preparer(executor, executor, 10**6, 100), []
    one, two = drawing(300), drawing(310)
    monkeypatch.setattr("serving.preparing.prepare", lambda picture, *_: order.append(picture) or picture)
    answers = await asyncio.gather(*(preparer.prepare([picture] * 20) for picture in (one, two)))
    assert answers == [[one] * 20, [two] * 20]
    assert order == [one, two] * 20


@pytest.mark.parametrize(("small_before", "most"), [(False, 2), (True, 1)])
async def test_of_two_threads_one_is_kept_for_small_requests_where_there_are_any(
    monkeypatch: pytest.MonkeyPatch, small_before: bool, most: int
):
    running, seen = [], []

    def noted(picture: bytes, *_: object) -> bytes:
        running.append(picture)
        seen.append(len(running))
        time.sleep(0.002)
        running.pop()
        return picture

    monkeypatch.setattr("serving.preparing.prepare", noted)
    with ThreadPoolExecutor(2) as executor:
        # Others are expected for a second of this clock.
        preparer = Preparer(executor, executor, 10**6, 100, threads=2, clock=FakeClock())
        if small_before:
            await preparer.prepare([drawing(300)])
        await asyncio.gather(*(preparer.prepare([drawing(300)] * 20) for _ in range(3)))
    assert max(seen) == most


async def test_who_waits_for_a_decoder_that_never_comes_back_is_answered_in_time(
    executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
):
    leave, requests = Event(), ([drawing(300)], [drawing(310)] * 20, [drawing(320)])
    monkeypatch.setattr("serving.preparing.prepare", lambda *_: leave.wait(20))
    preparer = Preparer(executor, executor, 10**6, 100)
    assert preparer.running_since is None
    began = time.monotonic()
    results = await asyncio.gather(*(preparer.prepare(each, began + 1) for each in requests), return_exceptions=True)
    assert [type(result) for result in results] == [DeadlineExceeded] * 3
    assert 1 <= time.monotonic() - began < 10
    assert preparer.running_since is not None
    assert began <= preparer.running_since < began + 1
    leave.set()
    assert await preparer.prepare([drawing(300)]) == [True]
    assert preparer.running_since is None


async def test_a_picture_whose_deadline_has_passed_is_not_prepared(executor: ThreadPoolExecutor):
    clock = FakeClock()
    with pytest.raises(DeadlineExceeded):
        await Preparer(executor, executor, 10**6, 10, clock=clock).prepare([drawing(300)], clock.now)


@pytest.mark.parametrize("place", ["PIL.ImageFile.ImageFile.load", "PIL.Image.open"])
async def test_a_process_without_memory_does_not_blame_the_picture(
    executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str
):
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(place, fail)
    (result,) = await Preparer(executor, executor, 10**6, 10).prepare([drawing(20)])
    assert isinstance(result, NotReady)
    assert "no memory for a picture" in caplog.text


def large(form: str, side: int, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (side, side), 200).save(stream, form, **options)
    return stream.getvalue()


async def test_small_files_with_many_pixels_do_not_stop_the_event_loop(executor: ThreadPoolExecutor):
    bomb = large("WEBP", 1000, lossless=True)
    assert len(bomb) < SMALL_BYTES
    preparer = Preparer(executor, executor, 10**8, 100)
    assert preparer.prepare_now([bomb]) is None
    assert preparer.prepare_now([drawing(20)]) is not None
    (result,) = await preparer.prepare([bomb])
    assert result.blank


async def test_small_pictures_that_take_time_are_finished_in_a_thread(
    executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
):
    threads: list[str] = []

    def noted(*arguments: Any) -> Prepared:
        threads.append(threading.current_thread().name)
        return prepare(*arguments)

    monkeypatch.setattr(sys.modules["serving.preparing"], "prepare", noted)
    milliseconds = itertools.count(0.0, 0.001)
    preparer = Preparer(executor, executor, 10**6, 100, clock=lambda: next(milliseconds))
    here = threading.current_thread().name
    assert preparer.prepare_now([drawing(8)]) is not None
    assert preparer.prepare_now([drawing(8)] * 4) is None
    assert threads == [here] * 2
    sizes = [8, 9, 10, 11]
    results = await preparer.prepare([drawing(size) for size in sizes])
    assert [result.size for result in results if isinstance(result, Prepared)] == [(size, size) for size in sizes]
    assert threads[2] == here
    assert len(threads[3:]) == 3
    assert here not in threads[3:]


@pytest.mark.parametrize(
    ("data", "alone"),
    [
        (large("PNG", 2100), True),
        (large("PNG", 1900), False),
        (large("JPEG", 2100), False),
        (large("JPEG", 2100, progressive=True), True),
    ],
)
async def test_large_pictures_are_prepared_one_by_one_beside_the_others(
    executor: ThreadPoolExecutor, data: bytes, alone: bool
):
    with ThreadPoolExecutor(1) as lane:
        leave = Event()
        lane.submit(leave.wait, 20)
        preparer = Preparer(executor, lane, 10**8, 100)
        waiting = asyncio.ensure_future(preparer.prepare([drawing(20), data, drawing(300)]))
        others = await asyncio.gather(*(preparer.prepare([drawing(300)]) for _ in range(5)))
        assert all(isinstance(result, Prepared) for (result,) in others)
        done, _ = await asyncio.wait([waiting], timeout=0.5 if alone else 10)
        assert bool(done) is not alone
        leave.set()
        assert [type(result) for result in await waiting] == [Prepared] * 3
