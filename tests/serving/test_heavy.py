import asyncio
import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from serving import heavy
from serving.errors import DeadlineExceeded
from serving.heavy import INLINE_TEXT_BYTES, alone, here_or_alone, take_apart


async def test_heavy_work_is_done_beside_the_event_loop_a_piece_at_a_time():
    running, most, threads = [], [], set()

    def work() -> int:
        running.append(1)
        most.append(len(running))
        threads.add(threading.get_ident())
        running.pop()
        return 7

    assert await asyncio.gather(*(alone(work) for _ in range(20))) == [7] * 20
    assert max(most) == 1
    assert threads.isdisjoint({threading.get_ident()})
    assert len(threads) == 1


async def test_nobody_waits_for_ever_for_work_that_stops_an_iteration():
    with pytest.raises(RuntimeError, match="stopped an iteration"):
        await asyncio.wait_for(alone(lambda: next(iter(()))), 20)


class FakeTime:
    """Seconds that pass when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)


async def test_before_the_next_piece_of_work_it_rests_as_long_as_the_last_took(monkeypatch: pytest.MonkeyPatch):
    clock, desk = FakeTime(), heavy.Desk()
    monkeypatch.setattr(heavy, "time", clock)

    def work(seconds: float) -> None:
        clock.now += seconds

    for seconds in (0.03, 0.02, 5.0):
        await desk.run(partial(work, seconds))
    assert clock.slept == pytest.approx([0.03, 0.02])
    clock.now += 0.04
    await desk.run(partial(work, 0.01))
    clock.now += 0.01
    await desk.run(partial(work, 0.01))
    assert clock.slept == pytest.approx([0.03, 0.02, heavy.MAX_REST_S - 0.04])


async def test_much_text_is_taken_apart_in_a_thread():
    deadline = time.monotonic() + 100
    assert await take_apart(INLINE_TEXT_BYTES, deadline, threading.get_ident) == threading.get_ident()
    assert await take_apart(INLINE_TEXT_BYTES + 1, deadline, threading.get_ident) != threading.get_ident()


async def test_work_whose_deadline_passes_before_its_turn_is_not_done():
    desk, end, done = heavy.Desk(), threading.Event(), list[str]()
    first = asyncio.ensure_future(desk.run(end.wait))
    await asyncio.sleep(0)
    with pytest.raises(DeadlineExceeded, match="before the body was read"):
        await desk.run(lambda: done.append("late"), time.monotonic() + 0.01)
    with pytest.raises(DeadlineExceeded):
        await desk.run(lambda: done.append("later still"), time.monotonic() - 1)
    end.set()
    assert await first
    await desk.run(lambda: done.append("in time"), time.monotonic() + 100)
    assert done == ["in time"]


class Body:
    """What a weak reference can be made to."""

    def read(self) -> str:
        return "read"


async def test_who_leaves_before_its_turn_takes_along_what_the_work_holds():
    desk, end = heavy.Desk(), threading.Event()
    first = asyncio.ensure_future(desk.run(end.wait))
    await asyncio.sleep(0)
    bodies = [Body() for _ in range(3)]
    left = [weakref.ref(body) for body in bodies[:2]]
    leaving = asyncio.ensure_future(desk.run(bodies[0].read))
    late = asyncio.ensure_future(desk.run(bodies[1].read, time.monotonic() + 0.01))
    staying = asyncio.ensure_future(desk.run(bodies[2].read))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving, late])
    assert leaving.cancelled()
    assert isinstance(late.exception(), DeadlineExceeded)
    del leaving, late, bodies
    gc.collect()
    assert [body() for body in left] == [None, None]
    end.set()
    assert await first
    assert await staying == "read"


async def test_who_leaves_while_its_work_begins_harms_nobody():
    with ThreadPoolExecutor(1) as executor:
        begun, end = threading.Event(), threading.Event()
        running = asyncio.ensure_future(heavy.in_thread(executor, lambda: begun.set() or end.wait()))
        await asyncio.to_thread(begun.wait)
        running.cancel()
        await asyncio.wait([running])
        end.set()
        assert await heavy.in_thread(executor, lambda: 7) == 7


async def test_who_waits_for_an_answer_to_be_made_waits_until_its_deadline():
    end = threading.Event()
    first = asyncio.ensure_future(alone(end.wait))
    await asyncio.sleep(0)
    with pytest.raises(DeadlineExceeded, match="before the answer was made"):
        await here_or_alone(2, 1, lambda: 7, time.monotonic() + 0.01)
    assert await here_or_alone(1, 1, lambda: 7, time.monotonic() - 1) == 7
    end.set()
    assert await first
