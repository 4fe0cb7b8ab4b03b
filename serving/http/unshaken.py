"""Connections that have not shaken hands: asyncio waits a minute for that, and until then tells nobody that they exist.

Must not know: what is spoken afterwards.
"""

from collections.abc import Sequence

from serving.http.guard import Guard
from serving.metrics import Metrics
from serving.settings import Settings
from serving.sockets import connections_of, end


class Unshaken:
    """Ends connections that have not shaken hands in time, or are too many.

    Args:
        settings: the ports, the time and the number.
        guards: know the connections that have shaken hands.
        metrics: told of each that is ended.
    """

    def __init__(self, settings: Settings, guards: Sequence[Guard], metrics: Metrics):
        self._ports = {settings.port, settings.v2_port, settings.admin_port} - {0}
        self._timeout_s, self._most = settings.head_timeout_s, settings.max_connections
        self._guards, self._rejected = guards, metrics.rejected["handshake_timeout"]
        self._since: dict[int, float] = {}

    def look(self, now: float) -> None:
        """Look at every connection once.

        Args:
            now: monotonic seconds.

        Raises:
            OSError: there is no descriptor left to look with.
        """
        known = set().union(*(guard.descriptors() for guard in self._guards))
        found = connections_of(self._ports)
        unshaken = {number: descriptor for number, descriptor in found.items() if descriptor not in known}
        self._since = {number: self._since.get(number, now) for number in unshaken}
        oldest = sorted(self._since, key=self._since.__getitem__)
        for place, number in enumerate(oldest):
            if now - self._since[number] >= self._timeout_s or len(oldest) - place > self._most:
                self._rejected.inc()
                end(unshaken[number])
