"""How many files and connections a worker may have open, which the system limits.

Must not know: what is done with them.
"""

import logging
import resource

from serving.settings import Settings

logger = logging.getLogger(__name__)

# What a worker has open beside its connections, 37 files when it is idle, and connections that are about to be closed.
RESERVE = 500


def needed(settings: Settings) -> int:
    """Return how many descriptors one worker may need at once."""
    ports = [settings.port, settings.v2_port, settings.grpc_port, settings.admin_port]
    # Connections that have not yet shaken hands are as many again.
    kinds = len([port for port in ports if port]) + bool(settings.tls_cert)
    return kinds * settings.max_connections + RESERVE


def raise_limit(settings: Settings) -> None:
    """Raise this process's limit, which the workers inherit, to what they need, as far as the system allows.

    Where it is too low, what needs a descriptor fails on every port long before `MNIST_MAX_CONNECTIONS` is reached.
    The usual limit is 1,024, for the sake of programs that call select(2).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = needed(settings)
    if resource.RLIM_INFINITY != soft < wanted:
        # No further: there are programs that close every number up to the limit when they start another.
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < wanted:
            logger.warning(
                "a worker may have %d open files and connections (ulimit -Hn), but MNIST_MAX_CONNECTIONS=%d on each "
                "port needs %d; when they are used up, no port takes a caller",
                soft,
                settings.max_connections,
                wanted,
            )
