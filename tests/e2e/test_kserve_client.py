"""KServe's own clients, as they are, against the real server."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tests.e2e.conftest import Start
from tests.e2e.server import LIMIT_S, ROOT
from tests.serving.tiny_model import expected_logits

IMAGES = np.random.default_rng(5).integers(0, 256, (2, 28, 28), np.uint8)


@pytest.fixture(scope="module")
def answers(start: Start) -> dict[str, Any]:
    server = start().wait_ready()
    command = [sys.executable, "-m", "tests.e2e.kserve_calls", server.v2_url, f"127.0.0.1:{server.grpc_port}"]
    called = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert called.returncode == 0, called.stderr
    found: dict[str, Any] = json.loads(called.stdout)
    return found


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_health_is_understood(answers: dict[str, Any], protocol: str):
    found = answers[protocol]
    assert (found["live"], found["ready"], found["model_ready"]) == (True, True, True)


def test_an_unknown_model_is_not_ready(answers: dict[str, Any]):
    assert answers["rest"]["unknown_ready"] is False


@pytest.mark.parametrize("form", ["json", "binary"])
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_digits_are_read(answers: dict[str, Any], protocol: str, form: str):
    found = answers[protocol][form]
    assert found["id"] == "mine"
    assert np.allclose(found["logits"], expected_logits(IMAGES), atol=1e-4)
