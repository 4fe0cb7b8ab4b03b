"""Clients that go on sending until they are told to stop, and remember every answer."""

import contextlib
import json
import threading
import time
from dataclasses import dataclass, field

import httpx
import numpy as np

from tests.e2e.server import pixels
from tests.serving.tiny_model import expected_logits


@dataclass
class Load:
    """Sends images that are all different over keep-alive connections, one thread for each.

    Attributes:
        right: answers with the digit that this very image has.
        wrong: every other answer, with its status.
        cut: connections that broke after a request was sent on them.
        refused: connections that were not accepted; nobody has lost anything.
    """

    url: str
    clients: int = 4
    right: int = 0
    wrong: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    refused: int = 0
    closed: int = 0
    versions: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(seed,)) for seed in range(self.clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        with httpx.Client(timeout=30) as client:
            while not self._stop.is_set():
                self._send(client, random.integers(0, 256, (28, 28), np.uint8))

    def _send(self, client: httpx.Client, image: np.ndarray) -> None:
        try:
            answer = client.post(f"{self.url}/predict", content=pixels(image))
        except httpx.ConnectError:
            self.refused += 1
            time.sleep(0.02)
            return
        except httpx.TransportError as error:
            with self._lock:
                self.cut.append(repr(error))
            return
        self._judge(answer, image)

    def _judge(self, answer: httpx.Response, image: np.ndarray) -> None:
        content: dict[str, object] = {}
        with contextlib.suppress(json.JSONDecodeError):
            content = answer.json()
        expected = int(expected_logits(image[None]).argmax())
        with self._lock:
            self.closed += answer.headers.get("connection") == "close"
            if answer.status_code == 200 and content["predictions"][0]["digit"] == expected:  # type: ignore[index]
                self.right += 1
                self.versions.add(content["model"]["version"])  # type: ignore[index]
            else:
                self.wrong.append(f"{answer.status_code} {answer.text[:200]}")
