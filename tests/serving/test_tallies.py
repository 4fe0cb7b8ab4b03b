import threading

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary

from serving.tallies import TURNS, Tallies, Tally, observe


class World:
    """A registry whose tallies are written whenever it is read."""

    def __init__(self) -> None:
        self.registry, self.tallies = CollectorRegistry(), Tallies()
        self.registry.register(self.tallies)


def test_what_is_noted_is_there_at_the_next_scrape_and_counted_once():
    world = World()
    tally = world.tallies.counter(Counter("a", "text", registry=world.registry))
    for _ in range(3):
        tally.note(1)
    assert [world.registry.get_sample_value("a_total") for _ in range(2)] == [3, 3]


def test_a_gauge_shows_the_newest_value_and_a_level_rises_and_falls():
    world = World()
    newest = world.tallies.gauge(Gauge("newest", "text", registry=world.registry))
    level = world.tallies.counter(Gauge("level", "text", registry=world.registry))
    for value in (5, 7, 6):
        newest.note(value)
    for step in (1, 1, -1):
        level.note(step)
    assert world.registry.get_sample_value("newest") == 6
    assert world.registry.get_sample_value("level") == 1


def test_a_summary_has_number_and_sum():
    world = World()
    tally = world.tallies.summary(Summary("s", "text", registry=world.registry))
    tally.note(0.5)
    tally.note(0.25)
    assert world.registry.get_sample_value("s_count") == 2
    assert world.registry.get_sample_value("s_sum") == pytest.approx(0.75)


def test_many_values_fall_into_the_buckets_where_each_would():
    bounds = (0.1, 1.0, 2.5)
    values = [0.0, 0.1, 0.1001, 1.0, 2.4, 2.5, 99.0, *np.random.default_rng(0).uniform(0, 3, 200).tolist()]
    registry = CollectorRegistry()
    together, singly = (Histogram(name, "text", buckets=bounds, registry=registry) for name in ("together", "singly"))
    observe(together, values)
    for value in values:
        singly.observe(value)
    for le in ("0.1", "1.0", "2.5", "+Inf"):
        found, expected = (registry.get_sample_value(f"{name}_bucket", {"le": le}) for name in ("together", "singly"))
        assert found == expected
    assert registry.get_sample_value("together_sum") == pytest.approx(sum(values))


def test_nothing_is_lost_between_threads_that_note_and_one_that_writes():
    written = 0

    def write(values: list[int]) -> None:
        nonlocal written
        written += sum(values)

    tallies = Tallies()
    tally: Tally[int] = tallies.add(write)
    threads = [threading.Thread(target=lambda: [tally.note(1) for _ in range(20_000)]) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        tallies.write()
    tallies.write()
    assert written == 60_000


def test_the_rest_is_written_unless_requests_have_had_all_written_since():
    written: list[list[int]] = []
    tallies = Tallies()
    tally: Tally[int] = tallies.add(written.append)
    tally.note(1)
    tallies.write_rest()
    assert written == [[1]]
    for _ in range(TURNS):
        tallies.write_some()
    tally.note(2)  # after its turn
    tallies.write_rest()
    assert written == [[1]]
    tallies.write_rest()
    assert written == [[1], [2]]


def test_those_who_write_some_do_not_wait_for_one_who_writes_all():
    begun, go_on, tallies = threading.Event(), threading.Event(), Tallies()

    def write(values: list[int]) -> None:
        begun.set()
        assert go_on.wait(30)

    tallies.add(write).note(1)
    writing = threading.Thread(target=tallies.write)
    writing.start()
    assert begun.wait(30)
    for _ in range(TURNS):
        tallies.write_some()
    go_on.set()
    writing.join()
