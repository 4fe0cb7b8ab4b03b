import select
import socket
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from serving.http.unshaken import Unshaken
from serving.metrics import Metrics
from serving.settings import Settings


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def unshaken(listening: socket.socket, known: set[int], **settings: Any) -> Unshaken:
    guard: Any = SimpleNamespace(descriptors=lambda: known)
    port = listening.getsockname()[1]
    return Unshaken(Settings(port=port, v2_port=0, **settings), [guard], Metrics(CollectorRegistry()))


def connect(listening: socket.socket, count: int) -> list[tuple[socket.socket, socket.socket]]:
    return [(socket.create_connection(listening.getsockname(), 5), listening.accept()[0]) for _ in range(count)]


def ended(pairs: list[tuple[socket.socket, socket.socket]]) -> list[bool]:
    """Return of each connection whether its client has come upon the end."""
    answers = []
    for client, _ in pairs:
        there, _, _ = select.select([client], [], [], 0.2)
        answers.append(bool(there) and client.recv(1) == b"")
    return answers


def close(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    for pair in pairs:
        for each in pair:
            each.close()


def test_who_does_not_shake_hands_in_time_is_ended_and_who_did_is_not(listening: socket.socket):
    pairs = connect(listening, 3)
    watch = unshaken(listening, {pairs[1][1].fileno()}, head_timeout_s=10)
    watch.look(100.0)
    watch.look(109.9)
    assert ended(pairs) == [False] * 3
    watch.look(110.0)
    assert ended(pairs) == [True, False, True]
    close(pairs)


def test_the_oldest_make_room_where_there_are_too_many(listening: socket.socket):
    pairs = connect(listening, 2)
    watch = unshaken(listening, set(), max_connections=3)
    watch.look(100.0)
    pairs += connect(listening, 2)
    watch.look(101.0)
    assert sum(ended(pairs[:2])) == 1
    assert ended(pairs[2:]) == [False, False]
    close(pairs)
