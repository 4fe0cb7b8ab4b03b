from pathlib import Path

from serving.orders import Orders


def test_what_one_worker_is_told_the_others_read_once(tmp_path: Path):
    giver, follower = Orders(tmp_path), Orders(tmp_path)
    assert follower.take() is None
    giver.give({"b", "a"})
    assert giver.take() is None
    assert follower.take() == {"a", "b"}
    assert follower.take() is None


def test_a_worker_that_comes_later_reads_the_orders_too(tmp_path: Path):
    Orders(tmp_path).give({"a"})
    assert Orders(tmp_path).take() == {"a"}


def test_a_lone_process_needs_no_folder():
    orders = Orders(None)
    orders.give({"a"})
    assert orders.take() is None
