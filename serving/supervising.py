"""Changes to circus, which starts and stops the workers for BentoML 1.4.40; made where it is imported first.

Must not know: what a worker does.
"""

import logging
import os
import signal
import time
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any

from circus.arbiter import Arbiter  # type: ignore[import-untyped]
from circus.client import make_json  # type: ignore[import-untyped]
from circus.controller import Controller  # type: ignore[import-untyped]
from circus.exc import ConflictError  # type: ignore[import-untyped]
from circus.process import DEAD_OR_ZOMBIE, UNEXISTING, Process  # type: ignore[import-untyped]
from circus.sighandler import SysHandler  # type: ignore[import-untyped]
from circus.watcher import Watcher  # type: ignore[import-untyped]

from serving.ending import announce_end, hold_signals, let_signals_in
from serving.heartbeat import forget_others, silence_s
from serving.metric_files import forget_dead_workers

logger = logging.getLogger(__name__)

# How often a stop is tried again while the supervisor is busy.
RETRY_S = 0.1

# What the workers take only when they have a handler for it: without one it would end them.
HELD = frozenset({signal.SIGHUP})

# How often the workers are looked at. Circus itself looks every 10 s, and by the wall clock: after a jump back it does
# not look until that time has come again.
LOOK_S = 1.0

# Whoever looks later than this was stopped, perhaps together with the workers: a paused container.
OVERSLEPT_S = 5 * LOOK_S

# A worker takes 3 s of processor time to start, so one that dies at once is not started all the time.
RESPAWN_S = 5.0


def _insist_on_quit(handler: SysHandler) -> None:
    """Stop as soon as the supervisor may.

    Circus refuses a command while another runs, such as the start of the workers, and then has forgotten the signal.
    """
    controller = handler.controller

    def quit_or_retry() -> None:
        running = controller.arbiter._exclusive_running_command
        if running is None:
            controller.dispatch((None, make_json("quit")))
        elif running != "arbiter_stop":
            controller.loop.call_later(RETRY_S, quit_or_retry)

    controller.loop.add_callback_from_signal(quit_or_retry)


class Watchdog:
    """Ends workers that are stuck, and replaces those that are gone.

    Args:
        arbiter: circus's; knows the workers.
        folder: of the heartbeats.
        limit_s: longest silence of a worker; 0 = they are not ended.
        clock: monotonic seconds.
    """

    def __init__(self, arbiter: Any, folder: Path, limit_s: float, clock: Callable[[], float] = time.monotonic):
        self._arbiter, self._folder, self._limit_s, self._clock = arbiter, folder, limit_s, clock
        self._respawned = clock() - RESPAWN_S
        self._looked = self._awake_since = clock()
        self._pids: set[int] = set()

    def look(self) -> None:
        """Look at every worker once."""
        now = self._clock()
        if now - self._looked > OVERSLEPT_S:
            self._awake_since = now
        self._looked = now
        workers = [worker for watcher in self._arbiter.iter_watchers() for worker in watcher.processes.values()]
        gone = [worker for worker in workers if worker.status in (DEAD_OR_ZOMBIE, UNEXISTING)]
        if self._limit_s:
            for worker in workers:
                if worker not in gone:
                    self._end_if_stuck(worker.pid, now)
        self._forget({worker.pid for worker in workers})
        if gone and now - self._respawned >= RESPAWN_S:
            self._replace(now)

    def _forget(self, pids: set[int]) -> None:
        """Clear up behind workers that are gone, also where nobody scrapes."""
        forget_others(self._folder, pids)
        if pids != self._pids:
            self._pids = pids
            forget_dead_workers(self._folder)

    def _end_if_stuck(self, pid: int, now: float) -> None:
        silent_s = min(silence_s(self._folder, pid, now), now - self._awake_since)
        if silent_s > self._limit_s:
            logger.error("worker %d has given no sign of life for %.1f s, so it is ended and replaced", pid, silent_s)
            os.kill(pid, signal.SIGKILL)

    def _replace(self, now: float) -> None:
        try:
            self._arbiter.manage_watchers()
        except ConflictError:  # another command runs; the next look is near
            return
        self._respawned = now


def _watch(loop: Any, watchdog: Watchdog) -> None:
    try:
        watchdog.look()
    except Exception:
        logger.exception("the workers could not be looked at")
    # By asyncio, whose clock is monotonic; the loop around it adds to the wall clock.
    loop.asyncio_loop.call_later(LOOK_S, _watch, loop, watchdog)


def _listen_to_nobody() -> None:
    """Have circus take no orders from outside.

    It would listen on a port of 127.0.0.1, where every process of the machine, or of the pod, could have it start
    programs: https://circus.readthedocs.io/en/latest/for-ops/commands/
    """
    make = Arbiter.__init__

    def make_deaf(arbiter: Arbiter, watchers: Any, **options: Any) -> None:
        make(arbiter, watchers, **options | {"endpoint": "inproc://orders", "pubsub_endpoint": "inproc://events"})

    Arbiter.__init__ = make_deaf


def _hold_reloads() -> None:
    """Have workers begin with SIGHUP held."""
    spawn = Process.spawn

    def spawn_holding(process: Process) -> None:
        hold_signals(HELD)
        try:
            spawn(process)
        finally:
            let_signals_in(HELD)

    Process.spawn = spawn_holding


def adapt_circus(folder: Path, silence_limit_s: float) -> None:
    """Hand SIGHUP to the workers instead of replacing them, forget no signal, watch the workers, listen to nobody.

    Args:
        folder: shared with the workers.
        silence_limit_s: see `Watchdog`.
    """
    start = Controller.start

    def start_and_watch(controller: Controller) -> None:
        start(controller)
        let_signals_in()
        _watch(controller.loop, Watchdog(controller.arbiter, folder, silence_limit_s))

    Controller.start = start_and_watch

    def announce_and_quit(handler: SysHandler) -> None:
        announce_end(folder)
        _insist_on_quit(handler)

    _listen_to_nobody()
    _hold_reloads()
    Watcher.__init__ = partialmethod(Watcher.__init__, send_hup=True)
    SysHandler.quit = announce_and_quit
