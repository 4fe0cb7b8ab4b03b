"""What a uvicorn server is changed to before it listens: guarded connections, and what comes before its app.

Must not know: whose server it is.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from serving.http.connections import GuardedProtocol
from serving.http.express import Express
from serving.http.guard import Guard

# On every answer, also those to what is no HTTP. The page adds its own policy for its content.
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


def protect(config: uvicorn.Config, guard: Guard, express: Express | None = None) -> None:
    """Keep the connections of a server, which has not yet begun to listen, within limits.

    Args:
        config: the server's, loaded.
        guard: knows the limits.
        express: answers what is ordinary before the server's app is asked; None where the app answers all.
    """
    config.http_protocol_class = partial(GuardedProtocol, guard, express)  # type: ignore[assignment]
    config.ws_protocol_class = None
    config.ssl = guard.tls
    config.timeout_graceful_shutdown = int(guard.stop_s) or 1
    config.encoded_headers = [*config.encoded_headers, *SECURITY_HEADERS]
    if isinstance(config.loaded_app, ProxyHeadersMiddleware) and "FORWARDED_ALLOW_IPS" not in os.environ:
        # By default uvicorn believes what callers on this machine say of the address that they call for.
        config.loaded_app = config.loaded_app.app


def put_before(config: uvicorn.Config, around: Callable[[Any], Any]) -> None:
    """Have requests taken before the app of a server, which has not yet begun to listen.

    Args:
        config: the server's, loaded.
        around: returns an ASGI app that takes them, given the server's.
    """
    if isinstance(config.loaded_app, ProxyHeadersMiddleware):
        # What it says of the caller's address is for all that follows.
        config.loaded_app.app = around(config.loaded_app.app)
    else:
        config.loaded_app = around(config.loaded_app)
