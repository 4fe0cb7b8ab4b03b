import asyncio
import threading

from serving.heavy import alone


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
