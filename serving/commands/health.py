"""`python -m serving health`: ask the running service whether it is ready, for a container's health check.

Must not know: how the service is run.
"""

import argparse
import os
import ssl
import sys
import urllib.error
import urllib.request
from typing import Any

from serving.errors import NotReady
from serving.options import seconds


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser("health", help="exit 0 if the service on this machine is ready, else 1")
    parser.add_argument("--timeout-s", type=seconds, default=2.0, help="longest wait for the answer (default: 2)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask `/readyz` on PORT."""
    from serving.settings import read_settings

    settings = read_settings(os.environ)
    scheme = "https" if settings.tls_cert else "http"
    ask(f"{scheme}://{reachable(settings.host)}:{settings.port}/readyz", arguments.timeout_s)
    sys.stdout.write("ready\n")
    return 0


def reachable(host: str) -> str:
    """Return the address at which a listener bound to `host` answers from the same machine, as a URL writes it."""
    if host in ("0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def ask(url: str, timeout_s: float) -> None:
    """Ask once.

    Raises:
        NotReady: no answer in time, or another status than 200.
    """
    # It is this very machine that answers, under a name that the certificate is not for.
    unverified = urllib.request.HTTPSHandler(context=ssl._create_unverified_context())
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), unverified)
    try:
        opener.open(url, timeout=timeout_s).close()
    except urllib.error.HTTPError as error:
        error.close()
        raise NotReady(f"{url} answered {error.code}") from error
    except OSError as error:
        raise NotReady(f"{url} does not answer: {getattr(error, 'reason', error)}") from error
