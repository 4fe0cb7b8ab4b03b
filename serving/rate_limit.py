"""Requests of one address in a time.

Must not know: transports.
"""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

from serving.errors import TooManyRequests

# Addresses that are remembered; who has not asked for longest is forgotten first.
MAX_ADDRESSES = 10_000

# Who has been quiet may ask as often as in this time at once.
BURST_S = 2.0


class RateLimit:
    """Counts the requests of each address.

    Args:
        per_s: requests per second, in the long run.
        clock: monotonic seconds.

    Source: the generic cell rate algorithm, ITU-T I.371: one time for each address, that at which it would be quiet.
    """

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic):
        self._interval_s, self._clock = 1 / per_s, clock
        # One request is always let through, however small the rate.
        self._burst_s = max(BURST_S, self._interval_s)
        self._quiet_at: OrderedDict[str, float] = OrderedDict()

    def check(self, address: str) -> None:
        """Let a request pass.

        Args:
            address: of the caller, IPv4 or IPv6; of the latter the network counts, which one caller has all of.

        Raises:
            TooManyRequests: there were too many.
        """
        caller, now = network_of(address), self._clock()
        quiet_at = max(self._quiet_at.get(caller, now), now) + self._interval_s
        wait_s = quiet_at - now - self._burst_s
        if wait_s > 1e-9:
            raise TooManyRequests("too many requests from this address; try again later", wait_s)
        self._quiet_at[caller] = quiet_at
        self._quiet_at.move_to_end(caller)
        if len(self._quiet_at) > MAX_ADDRESSES:
            self._quiet_at.popitem(last=False)


def network_of(address: str) -> str:
    """Return the /64 network of an IPv6 address, and any other address, or what a proxy tells instead, as it is."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(parsed.ipv4_mapped or ipaddress.IPv6Network((parsed.packed[:8] + bytes(8), 64)))
