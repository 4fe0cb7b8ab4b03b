"""Room for new connections: gRPC's C core refuses them where as many are open as may be, whatever those do.

Must not know: what a call does.
"""

from collections.abc import Callable, Collection
from pathlib import Path

from serving.sockets import callers_of, connections_of, end

# The share of the connections that is ended at once, at least one.
SHARE = 0.1


def make_room(port: int, most: int, at_work: Callable[[], Collection[int]]) -> None:
    """Where no more connections may come, end those that have been quiet the longest.

    Args:
        port: ours.
        most: connections that may be open.
        at_work: returns the ports of the callers whose connections stay.

    Raises:
        OSError: there is no descriptor left to look with.
    """
    # No more connections than descriptors; those are quickly counted.
    if sum(1 for _ in Path("/proc/self/fd").iterdir()) < most:
        return
    found = connections_of([port]).values()
    if len(found) < most:
        return
    stay = at_work()
    idle = [(quiet_s, descriptor) for descriptor, caller, quiet_s in callers_of(found) if caller not in stay]
    for _, descriptor in sorted(idle, reverse=True)[: max(round(SHARE * most), 1)]:
        end(descriptor)
