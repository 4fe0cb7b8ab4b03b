"""A network of its own for a thread of the test and what it starts: its rules trouble nobody else. Linux, as root."""

import contextlib
import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

CLONE_NEWNET = 0x40000000  # linux/sched.h


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@contextlib.contextmanager
def network_namespace() -> Iterator[None]:
    """Put this thread, and what it starts, into a network that has nothing but 127.0.0.1."""
    if os.geteuid() or not all(map(shutil.which, ("ip", "iptables", "tc"))):
        pytest.skip("a network of one's own needs root, iproute2 and iptables")
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/proc/self/task/{threading.get_native_id()}/ns/net").open("rb") as before:
        if libc.unshare(CLONE_NEWNET):
            pytest.skip(f"no network of one's own: {os.strerror(ctypes.get_errno())}")
        try:
            # Packets of Ethernet's size: at 64 KiB each, a request would be one, and hardly any would be lost.
            run("ip", "link", "set", "lo", "mtu", "1500", "up")
            yield
        finally:
            assert libc.setns(before.fileno(), CLONE_NEWNET) == 0


@contextlib.contextmanager
def rule(*words: str) -> Iterator[None]:
    """Have a rule of iptables in force for what arrives."""
    run("iptables", "-I", "INPUT", "-p", "tcp", *words)
    try:
        yield
    finally:
        run("iptables", "-D", "INPUT", "-p", "tcp", *words)


@contextlib.contextmanager
def slow_link(rate: str, latency: str) -> Iterator[None]:
    """Let everything through no faster than `rate`; what waits longer than `latency` is lost."""
    run("tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", rate, "burst", "8kb", "latency", latency)
    try:
        yield
    finally:
        run("tc", "qdisc", "del", "dev", "lo", "root")
