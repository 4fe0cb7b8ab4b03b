"""What the connections of one HTTP listener share: their number, and for how long they may do nothing useful.

Must not know: what a request asks for.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from serving.metrics import Metrics
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.http.connections import GuardedProtocol

# Requests that one connection may send ahead of their answers. A read of 256 KiB can hold 14,000, of 3 kB each in
# memory once they are taken apart.
MAX_PIPELINED = 16

# Lines of a head and of what follows a chunked body. Such a read can hold 64,000, which take the event loop 40 ms.
MAX_LINES = 1_000

# Chunks of a body that may be as small as they like; of more, each has at least so many bytes on average. Eight
# connections that sent one byte in each, 43,000 in a read, kept the event loop for seconds.
FREE_CHUNKS, LEAST_CHUNK_BYTES = 4_096, 256

# How often it is looked whether somebody's time is over.
LOOK_S = 0.5

# Longer than the idle timeout of the usual load balancers (60 s), so that they close first and no request meets a
# connection that is just being closed.
KEEP_ALIVE_S = 75

# Connections that were refused are read for this long and then closed: closed at once, they would lose the answer if
# anything of theirs is unread. There are never more than so many of them.
LINGER_S, MAX_LINGERING = 1.0, 100

# A connection that was made, or answered on, so short a time before its server ends may ask within as much again: its
# caller knows of no end yet, and may be slow to send what is on its way.
LAST_WORD_S = 0.8

# A connection that has sent no head for so long is the first to give way: that of an honest caller is on its way and
# needs less. Sooner, callers who come together would close each other, while idle connections stay open.
SILENCE_S = 1.0

# A body that takes longer gives way to a new connection where all are busy: it may be one of the probes.
SLOW_BODY_S = 5.0


class Guard:
    """What the connections of one listener share.

    Args:
        settings: the limits.
        metrics: told of every refusal.
        tls: for encrypted connections, or None.
    """

    def __init__(self, settings: Settings, metrics: Metrics, tls: ssl.SSLContext | None = None):
        self.tls = tls
        self.max_connections, self.max_head_bytes = settings.max_connections, settings.max_head_bytes
        self._head_timeout_s, self._stall_timeout_s = settings.head_timeout_s, settings.body_timeout_s
        self.stop_s = settings.stop_s
        self.too_large = f"the head of the request is larger than the limit of {self.max_head_bytes} bytes"
        self._metrics = metrics
        self._taken: set[GuardedProtocol] = set()
        self._lingering: dict[GuardedProtocol, asyncio.TimerHandle] = {}
        self.waiting: dict[GuardedProtocol, float] = {}
        """Connections whose next head is not complete, by the time since when, the oldest first."""
        self.stalled: dict[GuardedProtocol, float] = {}
        """Connections that do not take their answer, by the time since when."""
        self.receiving: dict[GuardedProtocol, float] = {}
        """Connections whose body is not complete, by the time since when, the oldest first."""
        self._resting: dict[GuardedProtocol, float] = {}
        """Connections that have been answered and ask for nothing, by the time since when, the oldest first."""
        self._timer: asyncio.TimerHandle | None = None

    def note(self, reason: str) -> None:
        """Count a refusal."""
        self._metrics.rejected[reason].inc()

    def descriptors(self) -> set[int]:
        """Return the descriptors of all connections."""
        return {
            protocol.transport.get_extra_info("socket").fileno()
            for protocol in (*self._taken, *self._lingering)
            if not protocol.transport.is_closing()
        }

    def admit(self, protocol: "GuardedProtocol") -> bool:
        """Return whether there is room for a new connection, at the cost of one that is idle or slow if need be."""
        if len(self._taken) >= self.max_connections and not self._make_room(protocol.loop.time()):
            self.note("connections")
            return False
        self._taken.add(protocol)
        self.waiting[protocol] = protocol.loop.time()
        self._watch(protocol.loop)
        return True

    def _make_room(self, now: float) -> bool:
        silent = now - next(iter(self.waiting.values()), now) >= SILENCE_S
        if idle := (silent and self.waiting) or self._resting or self.waiting:
            next(iter(idle)).drop()
            return True
        slowest, since = next(iter(self.receiving.items()), (None, now))
        if slowest is None or now - since < SLOW_BODY_S:
            return False
        self.note("connections")
        slowest.drop()
        return True

    def release(self, protocol: "GuardedProtocol") -> None:
        """Forget a connection that is closed, or about to be."""
        self._taken.discard(protocol)
        self.waiting.pop(protocol, None)
        self.stalled.pop(protocol, None)
        self.receiving.pop(protocol, None)
        self._resting.pop(protocol, None)
        timer = self._lingering.pop(protocol, None)
        if timer:
            timer.cancel()

    def linger(self, protocol: "GuardedProtocol", end: Callable[[], None]) -> None:
        """Let a connection that is refused be for a while.

        Args:
            protocol: the connection.
            end: closes it, after `LINGER_S`: when its caller has had time to read why, or to cool down.
        """
        self.release(protocol)
        if len(self._lingering) >= MAX_LINGERING:
            next(iter(self._lingering)).drop()
        self._lingering[protocol] = protocol.loop.call_later(LINGER_S, end)

    def part(self, protocol: "GuardedProtocol", leave: Callable[[], None]) -> None:
        """Let a connection end with its server, a busy one a little later."""
        since = self.waiting.get(protocol, self._resting.get(protocol))
        if since is None or protocol.loop.time() - since >= LAST_WORD_S:
            leave()
        else:
            protocol.loop.call_later(LAST_WORD_S, leave)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is None:
            self._timer = loop.call_later(LOOK_S, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for protocol, since in list(self.waiting.items()):
            if now - since < self._head_timeout_s:
                break
            protocol.time_out()
        for protocol, since in list(self.stalled.items()):
            if now - since >= self._stall_timeout_s:
                self.note("answer_timeout")
                protocol.drop()
        while self._resting and now - next(iter(self._resting.values())) >= KEEP_ALIVE_S:
            next(iter(self._resting)).leave()
        if self.waiting or self.stalled or self._resting:
            self._watch(loop)

    def rest(self, protocol: "GuardedProtocol") -> None:
        """Begin to count the time in which a connection asks for nothing."""
        self._resting[protocol] = protocol.loop.time()
        self._watch(protocol.loop)

    def wake(self, protocol: "GuardedProtocol") -> None:
        """Note that a connection asks for something."""
        self._resting.pop(protocol, None)

    def stall(self, protocol: "GuardedProtocol") -> None:
        """Begin to count the time in which a connection does not take its answer."""
        self.stalled[protocol] = protocol.loop.time()
        self._watch(protocol.loop)
