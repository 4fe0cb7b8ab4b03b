from types import SimpleNamespace
from typing import Any

from serving.supervising import RETRY_S, _insist_on_quit


class Loop:
    """Runs callbacks at once, and remembers those for later."""

    def __init__(self) -> None:
        self.later: list[tuple[float, Any]] = []

    def add_callback_from_signal(self, callback: Any) -> None:
        callback()

    def call_later(self, delay_s: float, callback: Any) -> None:
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
