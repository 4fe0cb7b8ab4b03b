from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from serving.orders import Orders


def test_what_one_worker_is_told_the_others_read_once(tmp_path: Path):
    giver, follower = Orders(tmp_path), Orders(tmp_path)
    assert follower.take() is None
    giver.give("b", unloaded=True)
    giver.give("a", unloaded=True)
    assert (giver.pending, giver.take()) == (False, None)
    assert (follower.pending, follower.take()) == (True, {"a", "b"})
    assert (follower.pending, follower.take()) == (False, None)
    follower.give("b", unloaded=False)
    assert giver.take() == {"a"}


def test_a_worker_that_comes_later_reads_the_orders_too(tmp_path: Path):
    Orders(tmp_path).give("a", unloaded=True)
    assert Orders(tmp_path).take() == {"a"}


def test_an_order_does_away_with_none_that_its_worker_has_not_followed_yet(tmp_path: Path):
    first, second = Orders(tmp_path), Orders(tmp_path)
    first.give("a", unloaded=True)
    second.give("b", unloaded=True)
    assert first.take() == second.take() == {"a", "b"}
    second.give("a", unloaded=False)
    first.give("c", unloaded=True)
    assert first.take() == second.take() == {"b", "c"}


def test_orders_at_the_same_moment_are_all_kept(tmp_path: Path):
    def give(worker: int) -> None:
        orders = Orders(tmp_path)
        for number in range(50):
            orders.give(f"{worker}-{number}", unloaded=True)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(give, range(4)))
    assert Orders(tmp_path).take() == {f"{worker}-{number}" for worker in range(4) for number in range(50)}


def test_a_lone_process_needs_no_folder():
    orders = Orders(None)
    orders.give("a", unloaded=True)
    assert (orders.pending, orders.take()) == (False, None)
