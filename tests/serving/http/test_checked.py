from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from serving.http.bodies import BodyReader
from serving.http.checked import CheckedJson
from serving.http.errors import json_response
from serving.metrics import Metrics
from serving.settings import Settings
from tests.serving.fakes import LIMITS


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what was received, and whatever comes after it."""
    request = Request(scope, receive)
    await json_response((await request.body()).decode())(scope, receive, send)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    bodies = BodyReader(Settings(max_body_bytes=2000))
    app = CheckedJson(echo, bodies, LIMITS, Metrics(CollectorRegistry()))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as made:
        yield made


async def test_json_within_the_limits_comes_through_as_it_is(client: httpx.AsyncClient):
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert (await client.post("/", content=b'{"a":  1}', headers=headers)).json() == '{"a":  1}'
    plain = {"content-type": "application/json", "content-encoding": "Identity"}
    assert (await client.post("/", content=b"{}", headers=plain)).json() == "{}"
    assert (await client.get("/")).json() == ""


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{}", {}, 415),
        (b"{}", {"content-type": "application/vnd.bentoml+pickle"}, 415),
        (b"{}", {"content-type": "multipart/form-data; boundary=x"}, 415),
        (b"{}", {"content-type": "application/json", "content-encoding": "gzip"}, 415),
        (b"{", {"content-type": "application/json"}, 400),
        (b'{"a": 1, "a": 2}', {"content-type": "application/json"}, 400),
        (b"[" * 40 + b"]" * 40, {"content-type": "application/json"}, 400),
        (b'"' + b"a" * 2000 + b'"', {"content-type": "application/json"}, 413),
    ],
)
async def test_what_an_app_shall_not_see_is_refused(
    client: httpx.AsyncClient, content: bytes, headers: dict[str, Any], status: int
):
    answer = await client.post("/", content=content, headers=headers)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
