"""A second of every target, and what fuzzing needs to be worth anything. `make fuzz` is the long form."""

import random
import time
from types import SimpleNamespace

import pytest

from tests.fuzz import targets
from tests.fuzz.mutate import mutate
from tests.fuzz.targets import TARGETS, Target, TooSlow
from tests.serving.fakes import FakeClock

# Of processor time: the machine may be busy.
SECONDS = 1.0


@pytest.mark.parametrize("name", TARGETS)
def test_every_seed_is_read_and_most_are_good(name: str):
    target = TARGETS[name]
    good = [target.check(seed) for seed in target.seeds()]
    assert sum(good) >= 0.6 * len(good)


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_breaks_a_reader_or_takes_a_second(name: str):
    target, chance = TARGETS[name], random.Random(name)
    seeds, stop, outcomes = target.seeds(), time.process_time() + SECONDS, set()
    while time.process_time() < stop:
        data = mutate(seeds, chance)
        try:
            outcomes.add(target.check(data))
        except Exception as error:
            raise AssertionError(f"{name}: {data.hex()}") from error
    assert outcomes == {True, False}


def test_a_slow_input_is_a_finding(monkeypatch: pytest.MonkeyPatch):
    def slow(_: bytes) -> bool:
        clock.now += 1.12
        return True

    clock = FakeClock()
    monkeypatch.setattr(targets, "time", SimpleNamespace(process_time=clock))
    with pytest.raises(TooSlow, match=r"1\.12 s for 3 bytes"):
        Target(slow, list).check(b"abc")
