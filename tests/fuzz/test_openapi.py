"""schemathesis: requests that the OpenAPI document allows, and some that it does not, against the real server."""

import os
from collections import defaultdict
from typing import Any

import httpx
import pytest

from tests.e2e.server import Server

pytest.importorskip("schemathesis", reason="schemathesis is in the extra `fuzz`: make fuzz")

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "100"))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]

# Statuses that this test does not bring about: they take time, a crowd, or another configuration.
ELSEWHERE = {408, 413, 429, 501, 503, 504}

seen: dict[str, set[int]] = defaultdict(set)


def fuzz(operation: APIOperation, mode: GenerationMode) -> None:
    """Send what the document allows, or does not, and hold the answers against it."""

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=EXAMPLES <= 100,
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        answer = case.call()
        seen[f"{operation.method} {operation.path}"].add(answer.status_code)
        # What the service says it does not offer is not a failure of it.
        case.validate_response(answer, checks=CHECKS if answer.status_code != 501 else CHECKS[1:])

    check()


@pytest.mark.parametrize("mode", GenerationMode)
def test_every_answer_is_a_documented_one(server: Server, mode: GenerationMode):
    document = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    fuzzed = 0
    for each in document.get_all_operations():
        operation = each.ok()
        try:
            fuzz(operation, mode)
        except Unsatisfiable:  # nothing that could be wrong is described
            assert mode == GenerationMode.NEGATIVE
            continue
        fuzzed += 1
    assert fuzzed >= (10 if mode == GenerationMode.POSITIVE else 3)
    assert "Traceback" not in server.log


def directed(url: str) -> None:
    """Bring about what chance does not."""
    png = {"content": b"\x89PNG\r\n\x1a\n"}
    for method, path, options in (
        ("get", "/models", {}),
        ("get", "/v2", {}),
        ("get", "/livez", {}),
        ("get", "/readyz", {}),
        ("post", "/v2/repository/index", {}),
        ("post", "/predict", {"content": b""}),
        ("post", "/predict?model=none", png),
        ("post", "/predict", png | {"headers": {"content-encoding": "gzip"}}),
        ("post", "/predict", png),
        ("post", "/predict", {"json": {"pixels": [1] + [0] * 783}}),
        ("get", "/explain?x=y", {}),
        ("get", "/explain?model=none", {}),
        ("get", "/explain", {}),
        ("post", "/explain", png | {"headers": {"content-encoding": "gzip"}}),
        ("post", "/explain?x=y", png),
        ("post", "/explain?model=none", png),
        ("post", "/explain", png),
        ("post", "/explain", {"json": {"pixels": [1] + [0] * 783}}),
        ("get", "/v2/models/none", {}),
        ("get", "/v2/models/mnist-cnn", {}),
        ("post", "/v2/models/none/infer", {}),
        ("post", "/v2/models/mnist-cnn/infer", {"content": b"{"}),
        ("post", "/v2/models/mnist-cnn/infer", {"content": b"{}", "headers": {"content-type": "text/csv"}}),
        ("post", "/v2/repository/index", {"content": b"["}),
        ("post", "/v2/repository/index", {"content": b"{}", "headers": {"content-type": "text/csv"}}),
    ):
        answer = httpx.request(method.upper(), url + path, **options)
        template = path.partition("?")[0].replace("/none", "/{model}").replace("/mnist-cnn", "/{model}")
        seen[f"{method} {template}"].add(answer.status_code)


def test_every_documented_status_is_given(server: Server):
    directed(server.url)
    described = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    for path, operations in described.items():
        for method, operation in operations.items():
            missing = {int(status) for status in operation["responses"]} - seen[f"{method} {path}"] - ELSEWHERE
            if path == "/explain" and method == "get":
                missing -= {422}  # of a file that was changed on the disk
            if path == "/v2/models/{model}/infer":
                missing -= {200}  # of which the document has an example that its own test sends
            assert not missing, f"{method} {path}: {missing}"
