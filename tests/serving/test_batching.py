import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.batching import SLICE_S, MicroBatcher
from serving.errors import DeadlineExceeded, QueueFull, ServingError
from tests.serving.fakes import FakeClock, FakeRun, numbered, numbers_in


class Recorder:
    def __init__(self) -> None:
        self.runs: list[int] = []
        self.waits: list[float] = []
        self.queue: list[int] = []

    def ran(self, images: int, compute_s: float) -> None:
        self.runs.append(images)

    def waited(self, seconds: float) -> None:
        self.waits.append(seconds)

    def queued(self, images: int) -> None:
        self.queue.append(images)


def batcher_of(run: Any, **options: Any) -> MicroBatcher:
    """Return a batcher whose runs take no time: how slow they are decides how much of an oversize request runs."""
    return MicroBatcher(run, **{"max_batch_size": 8, "queue_size": 100, "clock": FakeClock()} | options)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_request_that_finds_the_model_idle_runs_at_once():
    run = FakeRun()
    submitted = batcher_of(run).submit(numbered(7))
    with pytest.raises(StopIteration) as stopped:
        submitted.send(None)
    assert numbers_in(stopped.value.value) == [7]


async def test_what_arrives_in_the_same_turn_runs_together_in_its_order():
    run = FakeRun()
    batcher = batcher_of(run)
    answers = await asyncio.gather(*(batcher.submit(numbered(number)) for number in range(6)))
    assert [numbers_in(answer) for answer in answers] == [[number] for number in range(6)]
    assert run.batches == [[0], [1, 2, 3, 4, 5]]


async def test_no_batch_is_larger_than_the_limit_and_whole_requests_stay_whole():
    run = FakeRun()
    batcher = batcher_of(run)
    await asyncio.gather(*(batcher.submit(numbered(*range(10 * n, 10 * n + 3))) for n in range(5)))
    assert run.batches == [[0, 1, 2], [10, 11, 12, 20, 21, 22], [30, 31, 32, 40, 41, 42]]


async def test_an_oversize_request_is_split_and_put_together_again():
    run = FakeRun()
    batcher = batcher_of(run)
    large, small = await asyncio.gather(batcher.submit(numbered(*range(300, 320))), batcher.submit(numbered(1)))
    assert numbers_in(large) == list(range(300, 320))
    assert numbers_in(small) == [1]
    assert [len(batch) for batch in run.batches] == [1, 8, 8, 4]


async def test_who_asks_for_much_lets_those_who_ask_for_little_go_first():
    run, done = FakeRun(), []
    batcher = batcher_of(run, queue_size=200)

    async def submit(name: str, count: int) -> None:
        await batcher.submit(numbered(*range(count)))
        done.append(name)

    await asyncio.gather(submit("large", 80), submit("other large", 80), *(submit(f"small {n}", 1) for n in range(5)))
    assert sorted(done[:5]) == [f"small {n}" for n in range(5)]
    # The two large ones take turns as well.
    assert len(run.batches) <= 22


async def test_two_large_requests_take_turns():
    run = FakeRun()
    batcher = batcher_of(run, queue_size=200)
    await asyncio.gather(*(batcher.submit(numbered(*range(start, start + 32))) for start in (100, 200)))
    assert [batch[0] // 100 for batch in run.batches] == [1, 2] * 4


@pytest.mark.parametrize(("slices", "at_once"), [(0.5, 2), (10, 1)])
async def test_of_an_oversize_request_as_much_runs_at_once_as_takes_little_time(slices: float, at_once: int):
    clock, run = FakeClock(), FakeRun()

    def slow(images: Any) -> Any:
        clock.now += slices * SLICE_S * len(images)
        return run(images)

    batcher = batcher_of(slow, clock=clock)
    for number in range(100):
        await batcher.submit(numbered(number))
    del run.batches[:]
    large = asyncio.ensure_future(batcher.submit(numbered(*range(300, 320))))
    await turns(2)
    await batcher.submit(numbered(1))
    await asyncio.wait_for(large, 5)
    parts = [len([number for number in batch if number >= 300]) for batch in run.batches if batch != [1]]
    assert parts == [at_once] * (20 // at_once)
    assert run.batches.index([1]) <= 2


async def test_a_stream_of_small_requests_does_not_keep_an_oversize_one_waiting():
    run = FakeRun()
    batcher = batcher_of(run, queue_size=1000)
    large = asyncio.ensure_future(batcher.submit(numbered(*range(300, 332))))
    small = [asyncio.ensure_future(batcher.submit(numbered(*[number] * 8))) for number in range(20)]
    await large
    assert sum(each.done() for each in small) <= 5
    await asyncio.gather(*small)


async def test_zero_images_give_empty_outputs():
    assert (await batcher_of(FakeRun()).submit(numbered())).logits.shape == (0, 10)


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_again():
    batcher = batcher_of(FakeRun(), queue_size=4)
    waiting = [asyncio.ensure_future(batcher.submit(numbered(*range(n)))) for n in (1, 4)]
    await asyncio.sleep(0)
    assert batcher.waiting_images == 4
    with pytest.raises(QueueFull, match="4 images are waiting; the queue holds 4") as refused:
        await batcher.submit(numbered(9))
    assert refused.value.retry_after_s > 0
    await asyncio.gather(*waiting)
    assert batcher.waiting_images == 0


async def test_oversize_requests_that_fill_their_queue_leave_room_for_small_ones():
    batcher = batcher_of(FakeRun(), queue_size=20)
    waiting = [asyncio.ensure_future(batcher.submit(numbered(*range(n)))) for n in (1, 20, 5, 5, 5, 5)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFull, match="20 images are waiting; the queue holds 20"):
        await batcher.submit(numbered(1))
    with pytest.raises(QueueFull, match="20 images are waiting; the queue holds 20"):
        await batcher.submit(numbered(*range(9)))
    await asyncio.gather(*waiting)


async def test_an_oversize_request_takes_no_more_room_than_what_is_left_of_it():
    batcher = batcher_of(FakeRun(), queue_size=20)
    first = [asyncio.ensure_future(batcher.submit(numbered(*range(n)))) for n in (1, 20)]
    await turns(2)
    with pytest.raises(QueueFull, match="12 images are waiting; the queue holds 20"):
        await batcher.submit(numbered(*range(9)))
    await asyncio.gather(*first)


async def test_a_request_whose_caller_has_gone_is_dropped_before_it_runs():
    run = FakeRun()
    batcher = batcher_of(run, queue_size=3)
    first, gone, last = (asyncio.ensure_future(batcher.submit(numbered(*numbers))) for numbers in ([1], [2, 3], [4]))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(first, last)
    assert [2, 3] not in run.batches
    assert sorted(run.batches) in ([[1], [4]], [[1, 4]])
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_a_caller_who_goes_frees_its_place_in_the_queue():
    batcher = batcher_of(FakeRun(), queue_size=2)
    tasks = [asyncio.ensure_future(batcher.submit(numbered(*numbers))) for numbers in ([1], [2, 3])]
    await asyncio.sleep(0)
    tasks[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[1]
    assert batcher.waiting_images == 0


async def test_the_place_of_an_oversize_request_is_free_when_its_caller_has_gone():
    batcher = batcher_of(FakeRun(), queue_size=20)
    batcher._busy = True  # so all wait
    asked = [asyncio.ensure_future(batcher.submit(numbered(*range(10)))) for _ in range(2)]
    await asyncio.sleep(0)
    asked[1].cancel()
    await asyncio.wait(asked[1:])
    asked.append(asyncio.ensure_future(batcher.submit(numbered(*range(10)))))
    await asyncio.sleep(0)
    assert batcher.waiting_images == 20
    batcher._next()
    assert [len(answer.logits) for answer in await asyncio.gather(*asked[::2])] == [10, 10]


async def test_a_deadline_that_has_passed_is_refused_without_a_run():
    run, clock = FakeRun(), FakeClock()
    with pytest.raises(DeadlineExceeded):
        await batcher_of(run, clock=clock).submit(numbered(1), clock.now)
    assert run.batches == []


@pytest.mark.parametrize("place", [1, 2, 3])
@pytest.mark.parametrize("after_s", [2.0, 2.5])
async def test_a_request_whose_deadline_passes_in_the_queue_is_not_run(after_s: float, place: int):
    clock, run = FakeClock(), FakeRun()
    batcher = batcher_of(run, clock=clock)
    deadlines = [clock.now + 2 if number == place else None for number in range(4)]
    calls = [asyncio.ensure_future(batcher.submit(numbered(number), each)) for number, each in enumerate(deadlines)]
    await asyncio.sleep(0)
    assert batcher.waiting_images == 3
    clock.now += after_s
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(answers[place], DeadlineExceeded)
    assert run.batches == [[0], [number for number in (1, 2, 3) if number != place]]


async def test_a_request_that_comes_after_its_deadline_is_not_run():
    clock = FakeClock()

    class SlowRun(FakeRun):
        def __call__(self, images: Any) -> Any:
            clock.now += 2.0
            return super().__call__(images)

    run = SlowRun()
    batcher = batcher_of(run, clock=clock)
    calls = [batcher.submit(numbered(1)), batcher.submit(numbered(2), clock.now + 1), batcher.submit(numbered(3))]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(answers[1], DeadlineExceeded)
    assert run.batches == [[1], [3]]


async def test_a_deadline_is_answered_while_the_batch_still_runs():
    entered, leave = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def blocked(images: Any) -> Any:
        loop.call_soon_threadsafe(entered.set)
        asyncio.run_coroutine_threadsafe(leave.wait(), loop).result(20)
        return FakeRun()(images)

    clock = FakeClock()
    with ThreadPoolExecutor(1) as executor:
        batcher = batcher_of(blocked, executor=executor, inline_images=0, clock=clock)
        with pytest.raises(DeadlineExceeded):
            await batcher.submit(numbered(1), clock.now + 0.01)
        await entered.wait()
        assert batcher.waiting_images == 0
        assert batcher.running_since == clock.now
        leave.set()
        assert numbers_in(await batcher.submit(numbered(2))) == [2]
        assert batcher.running_since is None


async def test_a_failing_model_fails_its_requests_and_the_batcher_goes_on(caplog: pytest.LogCaptureFixture):
    run = FakeRun(error=RuntimeError("secret"))
    batcher = batcher_of(run)
    answers = await asyncio.gather(*(batcher.submit(numbered(n)) for n in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [ServingError] * 3
    assert not any("secret" in str(answer) for answer in answers)
    assert run.batches == [[0], [1, 2], [1], [2]]
    assert len(caplog.records) == 4
    run.error = None
    assert numbers_in(await batcher.submit(numbered(5))) == [5]


class OneBad(FakeRun):
    """Fails on every batch that holds the image 13."""

    def __call__(self, images: Any) -> Any:
        outputs = super().__call__(images)
        if 13 in numbers_in(outputs):
            raise RuntimeError("no")
        return outputs


@pytest.mark.parametrize("threads", [None, 1])
async def test_case_d01_where_a_batch_fails_each_request_runs_alone(threads: int | None):
    run = OneBad()
    with ThreadPoolExecutor(threads) as executor:
        batcher = batcher_of(run, executor=executor if threads else None, inline_images=0)
        asked = [numbered(0), numbered(*range(20, 40)), numbered(1, 2), numbered(13), numbered(3)]
        *good, bad, last = await asyncio.gather(*map(batcher.submit, asked), return_exceptions=True)
        await turns()
    assert type(bad) is ServingError
    assert [numbers_in(each) for each in (*good[:1], *good[2:], last)] == [[0], [1, 2], [3]]
    assert numbers_in(good[1]) == list(range(20, 40))
    assert run.batches.count([13]) == 1
    assert batcher.waiting_images == 0


async def test_whose_caller_has_gone_is_not_run_alone():
    run = OneBad()
    batcher = batcher_of(run, inline_images=0)
    first, gone, bad = (asyncio.ensure_future(batcher.submit(numbered(n))) for n in (0, 1, 13))
    while [1, 13] not in run.batches:
        await turns(1)
    gone.cancel()
    with pytest.raises(ServingError):
        await bad
    assert numbers_in(await first) == [0]
    assert [1] not in run.batches


async def test_a_batch_that_no_thread_takes_any_more_fails_its_requests():
    run, leave = FakeRun(), threading.Event()
    with ThreadPoolExecutor(1) as executor:
        executor.submit(leave.wait)
        batcher = batcher_of(run, executor=executor, inline_images=0)
        asked = [asyncio.ensure_future(batcher.submit(numbered(n))) for n in range(2)]
        await turns()
        executor.shutdown(wait=False, cancel_futures=True)
        leave.set()
        answers = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 20)
    assert [type(answer) for answer in answers] == [ServingError] * 2
    assert run.batches == []


@pytest.mark.parametrize("threads", [None, 1])
async def test_without_memory_for_the_batch_each_request_runs_alone(
    threads: int | None, monkeypatch: pytest.MonkeyPatch
):
    def refuse(parts: Any) -> Any:
        raise MemoryError

    run = FakeRun()
    with ThreadPoolExecutor(threads) as executor:
        batcher = batcher_of(run, executor=executor if threads else None, inline_images=0)
        monkeypatch.setattr("serving.waiting.np.concatenate", refuse)
        answers = await asyncio.wait_for(asyncio.gather(*(batcher.submit(numbered(n)) for n in range(3))), 20)
    assert [numbers_in(answer) for answer in answers] == [[0], [1], [2]]


async def test_a_thread_that_cannot_be_started_fails_its_requests_only(monkeypatch: pytest.MonkeyPatch):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    run = FakeRun()
    with ThreadPoolExecutor(1) as executor:
        batcher = batcher_of(run, executor=executor, inline_images=0)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(ServingError, match="the model failed"):
                await asyncio.wait_for(batcher.submit(numbered(1)), 20)
        assert numbers_in(await asyncio.wait_for(batcher.submit(numbered(2)), 20)) == [2]


async def test_a_failure_in_the_thread_fails_its_requests_only():
    run = FakeRun(error=RuntimeError("no"))
    with ThreadPoolExecutor(1) as executor:
        batcher = batcher_of(run, executor=executor, inline_images=0)
        with pytest.raises(ServingError, match="the model failed"):
            await batcher.submit(numbered(1))
        run.error = None
        assert numbers_in(await batcher.submit(numbered(2))) == [2]


async def test_what_arrives_while_the_thread_works_forms_the_next_batch():
    loop = asyncio.get_running_loop()
    leave = asyncio.Event()
    run = FakeRun()

    def gated(images: Any) -> Any:
        asyncio.run_coroutine_threadsafe(leave.wait(), loop).result(20)
        return run(images)

    with ThreadPoolExecutor(1) as executor:
        batcher = batcher_of(gated, executor=executor, inline_images=0)
        tasks = [asyncio.ensure_future(batcher.submit(numbered(0)))]
        await turns()
        tasks += [asyncio.ensure_future(batcher.submit(numbered(number))) for number in range(1, 4)]
        await turns()
        leave.set()
        await asyncio.gather(*tasks)
    assert run.batches == [[0], [1, 2, 3]]


async def test_while_a_batch_that_was_waited_for_runs_no_other_begins():
    loop = asyncio.get_running_loop()
    entered, leave = asyncio.Event(), asyncio.Event()
    inside, most = 0, 0

    def gated(images: Any) -> Any:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        loop.call_soon_threadsafe(entered.set)
        asyncio.run_coroutine_threadsafe(leave.wait(), loop).result(5)
        inside -= 1
        return FakeRun()(images)

    with ThreadPoolExecutor(2) as executor:
        options = {"max_delay_s": 0.001, "max_batch_size": 2, "clock": time.monotonic}
        batcher = batcher_of(gated, executor=executor, inline_images=0, **options)
        first = asyncio.ensure_future(batcher.submit(numbered(0)))
        await entered.wait()
        others = [asyncio.ensure_future(batcher.submit(numbered(number))) for number in (1, 2)]
        await turns()
        leave.set()
        await asyncio.gather(first, *others)
    assert most == 1


async def test_small_batches_run_on_the_loop_and_large_ones_in_the_thread():
    threads = []

    def run(images: Any) -> Any:
        threads.append((len(images), threading.current_thread() is threading.main_thread()))
        return FakeRun()(images)

    with ThreadPoolExecutor(1) as executor:
        batcher = batcher_of(run, executor=executor, inline_images=2)
        for size in (1, 2, 3, 8):
            await batcher.submit(numbered(*range(size)))
            await turns()
    assert threads == [(1, True), (2, True), (3, False), (8, False)]


async def test_no_batch_on_the_loop_is_larger_than_the_limit():
    run = FakeRun()
    with ThreadPoolExecutor(1) as executor:
        batcher = batcher_of(run, executor=executor, inline_images=100)
        assert numbers_in(await batcher.submit(numbered(*range(20)))) == list(range(20))
    assert max(map(len, run.batches)) == 8


async def test_with_a_delay_nothing_runs_at_once():
    batcher = batcher_of(FakeRun(), max_delay_s=0.001)
    assert not batcher.idle
    assert batcher.run_now(numbered(1)) is None


async def test_with_a_delay_the_batch_fills_before_it_runs():
    run = FakeRun()
    batcher = batcher_of(run, max_delay_s=30.0, max_batch_size=4)
    await asyncio.wait_for(asyncio.gather(*(batcher.submit(numbered(number)) for number in range(4))), 5)
    assert run.batches == [[0, 1, 2, 3]]


async def test_a_delay_ends_although_the_batch_is_not_full():
    run = FakeRun()
    answer = await batcher_of(run, max_delay_s=0.001, clock=time.monotonic).submit(numbered(6))
    assert numbers_in(answer) == [6]


async def test_a_batch_that_becomes_full_does_not_wait_for_the_delay():
    run = FakeRun()
    batcher = batcher_of(run, max_delay_s=30.0, max_batch_size=2)
    first = asyncio.ensure_future(batcher.submit(numbered(0)))
    await turns()
    assert run.batches == []
    delay = batcher._filling
    await asyncio.wait_for(asyncio.gather(first, batcher.submit(numbered(1))), 5)
    assert run.batches == [[0, 1]]
    assert delay is not None
    assert delay.cancelled()


async def test_the_observer_hears_of_batches_waits_and_the_queue():
    recorder, clock = Recorder(), FakeClock()
    batcher = batcher_of(FakeRun(), observer=recorder, clock=clock)
    await asyncio.gather(*(batcher.submit(numbered(number)) for number in range(3)))
    assert recorder.runs == [1, 2]
    assert recorder.waits == [0.0, 0.0, 0.0]
    assert recorder.queue == [1, 2, 0]
    await batcher.submit(numbered(*range(20)))
    assert (recorder.runs[2:], recorder.waits) == ([8, 8, 4], [0.0] * 4)


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(0, 30), max_size=20), inline=st.integers(0, 8))
def test_every_row_comes_back_to_its_own_request(sizes: list[int], inline: int):
    async def run_all() -> None:
        with ThreadPoolExecutor(1) as executor:
            batcher = batcher_of(FakeRun(), queue_size=10_000, inline_images=inline, executor=executor)
            starts = np.cumsum([0, *sizes])
            wanted = [list(range(start, start + size)) for start, size in zip(starts, sizes, strict=False)]
            answers = await asyncio.gather(*(batcher.submit(numbered(*numbers)) for numbers in wanted))
        assert [numbers_in(answer) for answer in answers] == wanted
        assert batcher.waiting_images == 0

    asyncio.run(run_all())


async def test_where_batches_save_little_all_that_finds_the_model_idle_runs_at_once():
    run = FakeRun()
    batcher = batcher_of(run, singly=True)
    answers = await asyncio.gather(*(batcher.submit(numbered(number)) for number in range(3)))
    assert [numbers_in(answer) for answer in answers] == [[0], [1], [2]]
    assert run.batches == [[0], [1], [2]]


async def test_nothing_runs_now_that_is_too_large_or_that_others_wait_before():
    run = FakeRun()
    batcher = batcher_of(run, inline_images=2, executor=ThreadPoolExecutor(1), singly=True)
    assert batcher.idle
    assert batcher.run_now(numbered(1, 2, 3)) is None
    waiting = asyncio.ensure_future(batcher.submit(numbered(1, 2, 3)))
    await asyncio.sleep(0)
    assert not batcher.idle
    assert batcher.run_now(numbered(4)) is None
    assert numbers_in(await waiting) == [1, 2, 3]
