import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from circus.exc import ConflictError
from circus.process import DEAD_OR_ZOMBIE, RUNNING

from serving.heartbeat import PREFIX
from serving.supervising import LOOK_S, OVERSLEPT_S, RESPAWN_S, RETRY_S, Watchdog, _insist_on_quit, _watch
from tests.serving.fakes import FakeClock


class Loop:
    """Runs callbacks at once, and remembers those for later."""

    def __init__(self) -> None:
        self.later: list[tuple[float, Any]] = []

    def add_callback_from_signal(self, callback: Any) -> None:
        callback()

    def call_later(self, delay_s: float, callback: Any, *_: Any) -> None:
        self.later.append((delay_s, callback))


def handler(running: str | None) -> Any:
    commands: list[Any] = []
    arbiter = SimpleNamespace(_exclusive_running_command=running)
    controller = SimpleNamespace(arbiter=arbiter, loop=Loop(), dispatch=commands.append, commands=commands)
    return SimpleNamespace(controller=controller)


def test_an_idle_supervisor_stops_at_once():
    made = handler(None)
    _insist_on_quit(made)
    assert len(made.controller.commands) == 1
    assert made.controller.loop.later == []


def test_a_busy_supervisor_stops_when_it_is_done():
    made = handler("arbiter_start_watchers")
    _insist_on_quit(made)
    assert made.controller.commands == []
    ((delay_s, again),) = made.controller.loop.later
    assert delay_s == RETRY_S
    made.controller.arbiter._exclusive_running_command = None
    again()
    assert len(made.controller.commands) == 1


def test_a_second_signal_changes_nothing():
    made = handler("arbiter_stop")
    _insist_on_quit(made)
    assert made.controller.commands == made.controller.loop.later == []


class Arbiter:
    """Circus's, with two workers."""

    def __init__(self) -> None:
        self.workers = {pid: SimpleNamespace(pid=pid, status=RUNNING) for pid in (11, 12)}
        self.replaced = 0
        self.busy = False

    def iter_watchers(self) -> Any:
        return [SimpleNamespace(processes=self.workers)]

    def manage_watchers(self) -> None:
        if self.busy:
            raise ConflictError("busy")
        self.replaced += 1


class World:
    """A watchdog over two workers that have just shown that they live."""

    def __init__(self, folder: Path, killed: list[tuple[int, int]]):
        self.clock, self.arbiter, self.folder, self.killed = FakeClock(), Arbiter(), folder, killed
        self.watchdog = Watchdog(self.arbiter, folder, 10.0, self.clock)
        for pid in self.arbiter.workers:
            self.beat(pid)

    def beat(self, pid: int) -> None:
        path = self.folder / f"{PREFIX}{pid}"
        path.touch()
        os.utime(path, ns=(round(self.clock.now * 1e9),) * 2)

    def pass_time(self, seconds: int, *beating: int) -> None:
        for _ in range(seconds):
            self.clock.now += LOOK_S
            for pid in beating:
                self.beat(pid)
            self.watchdog.look()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr("serving.supervising.os.kill", lambda pid, number: killed.append((pid, number)))
    return World(tmp_path, killed)


def test_what_a_dead_worker_has_left_is_cleared_up_without_a_scrape(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("serving.metric_files.is_alive", lambda pid: pid != 11)
    for name in ("counter_11.db", "gauge_livesum_11.db", "counter_12.db"):
        (world.folder / name).write_bytes(bytes(1 << 17))
    world.watchdog.look()
    assert [path.name for path in world.folder.glob("*.db")] == ["counter_12.db"]


def test_a_silent_worker_is_ended_and_the_other_is_not(world: World, caplog: pytest.LogCaptureFixture):
    world.pass_time(10, 12)
    assert world.killed == []
    world.pass_time(1, 12)
    assert world.killed == [(11, signal.SIGKILL)]
    assert "worker 11 has given no sign of life for 11.0 s" in caplog.text


def test_without_a_limit_nobody_is_ended(world: World):
    world.watchdog = Watchdog(world.arbiter, world.folder, 0.0, world.clock)
    world.pass_time(100)
    assert world.killed == []


def test_a_worker_that_has_not_begun_is_given_time(world: World):
    (world.folder / f"{PREFIX}11").unlink()
    world.pass_time(30, 12)
    assert world.killed == []


def test_a_watchdog_that_was_stopped_itself_does_not_count_that_time(world: World):
    world.clock.now += max(100, OVERSLEPT_S + 1)
    world.watchdog.look()
    world.pass_time(10)
    assert world.killed == []
    world.pass_time(1)
    assert len(world.killed) == 2


def test_a_worker_that_is_gone_is_replaced_at_once_but_not_all_the_time(world: World):
    world.arbiter.workers[11].status = DEAD_OR_ZOMBIE
    world.pass_time(1, 12)
    assert world.arbiter.replaced == 1
    world.pass_time(round(RESPAWN_S / LOOK_S) - 1, 12)
    assert world.arbiter.replaced == 1
    world.pass_time(1, 12)
    assert world.arbiter.replaced == 2
    assert world.killed == []


def test_a_busy_supervisor_replaces_when_it_is_done(world: World):
    world.arbiter.workers[11].status = DEAD_OR_ZOMBIE
    world.arbiter.busy = True
    world.pass_time(2, 12)
    world.arbiter.busy = False
    world.pass_time(1, 12)
    assert world.arbiter.replaced == 1


def test_what_dead_workers_left_is_removed(world: World):
    world.beat(13)
    world.watchdog.look()
    assert {path.name for path in world.folder.iterdir()} == {f"{PREFIX}11", f"{PREFIX}12"}


def test_a_look_that_fails_is_not_the_last(caplog: pytest.LogCaptureFixture):
    def fail() -> None:
        raise OSError("no descriptor")

    loop = SimpleNamespace(asyncio_loop=Loop())
    _watch(loop, SimpleNamespace(look=fail))  # type: ignore[arg-type]
    assert "no descriptor" in caplog.text
    assert [delay_s for delay_s, _ in loop.asyncio_loop.later] == [LOOK_S]
