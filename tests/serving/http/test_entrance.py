"""Tokens, addresses, pages of elsewhere and the administrators' port, over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.worker import Worker
from tests.serving.v2_worker import client_of, tiny_worker

ASK, CHANGE = {"authorization": "Bearer ask"}, {"authorization": "Bearer change"}
ORIGIN = {"origin": "https://page.example"}

OPEN = ["/livez", "/readyz", "/healthz", "/v2/health/live", "/v2/health/ready", "/", "/docs"]
CLOSED = [
    "/models",
    "/metrics",
    "/openapi.json",
    "/explain",
    "/v2",
    "/v2/models/tiny",
    "/v2/models/tiny/ready",
    "/nothing",
]


@asynccontextmanager
async def service(root: Path, **settings: Any) -> AsyncIterator[tuple[Worker, httpx.AsyncClient]]:
    async with tiny_worker(root, **settings) as worker, client_of(worker) as client:
        yield worker, client


async def test_with_a_token_health_and_the_page_alone_are_open(tmp_path: Path):
    async with service(tmp_path, token="ask") as (_, client):
        assert [(await client.get(path)).status_code for path in OPEN] == [200] * len(OPEN)
        for path in CLOSED:
            answer = await client.get(path)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), path
            assert "Authorization: Bearer TOKEN" in answer.json()["error"]
            assert (await client.get(path, headers=ASK)).status_code != 401
        for path in ("/predict", "/explain", "/v2/models/tiny/infer", "/v2/repository/index"):
            assert (await client.post(path)).status_code == 401
            assert (await client.post(path, headers=ASK)).status_code != 401
        files = (await client.get("/")).text.split('src="')[1].split('"')[0]
        assert (await client.get("/" + files)).status_code == 200


async def test_who_may_ask_may_not_change_but_who_may_change_may_ask(tmp_path: Path):
    load = "/v2/repository/models/tiny/load"
    async with service(tmp_path, token="ask", admin_token="change") as (worker, client):
        assert (await client.post(load, headers=ASK)).status_code == 401
        assert (await client.post(load, headers=CHANGE)).status_code == 200
        assert (await client.get("/models", headers=CHANGE)).status_code == 200
        assert (await client.get("/models", headers={"authorization": "Bearer wrong"})).status_code == 401
        value = worker.metrics.registry.get_sample_value
        assert value("mnist_rejected_total", {"reason": "unauthorized"}) == 2


async def test_a_large_body_without_a_token_is_not_waited_for(tmp_path: Path):
    async with service(tmp_path, token="ask") as (_, client):
        large, small = (
            await client.post("/predict", content=bytes(100_000)),
            await client.post("/predict", content=b"x"),
        )
    assert (large.status_code, large.headers["connection"]) == (401, "close")
    assert (small.status_code, "connection" in small.headers) == (401, False)


async def test_an_address_that_asks_too_often_is_429_and_health_is_not_counted(tmp_path: Path):
    async with service(tmp_path, rate_limit=1.0) as (_, client):
        answers = [await client.get("/models") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[2].headers["retry-after"] == "1"
        assert [(await client.get("/livez")).status_code for _ in range(10)] == [200] * 10


async def test_pages_of_elsewhere_may_not_call_by_default(tmp_path: Path):
    async with service(tmp_path) as (_, client):
        answer = await client.get("/models", headers=ORIGIN)
        assert not any(name.startswith("access-control") for name in answer.headers)
        asked = ORIGIN | {"access-control-request-method": "POST"}
        assert (await client.options("/predict", headers=asked)).status_code == 405


async def test_pages_that_are_listed_may_call_and_read_even_a_refusal(tmp_path: Path):
    origins = "https://page.example, https://other.example:8443"
    async with service(tmp_path, cors_origins=origins, token="ask") as (_, client):
        asked = ORIGIN | {
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization, content-type",
        }
        preflight = await client.options("/predict", headers=asked)
        assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, ORIGIN["origin"])
        for headers, status in ((ORIGIN, 401), (ORIGIN | ASK, 200)):
            answer = await client.get("/models", headers=headers)
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, ORIGIN["origin"])
            assert "access-control-allow-credentials" not in answer.headers
        answer = await client.get("/models", headers={"origin": "https://evil.example"} | ASK)
        assert "access-control-allow-origin" not in answer.headers


MANAGEMENT = [("GET", "/metrics"), ("POST", "/v2/repository/index"), ("POST", "/v2/repository/models/tiny/load")]


async def test_a_port_for_administrators_takes_management_and_metrics_from_the_others(tmp_path: Path):
    async with service(tmp_path, admin_port=8002, admin_token="change") as (worker, client):
        assert worker.admin_app is not None
        transport = httpx.ASGITransport(worker.admin_app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as admin:
            for method, path in MANAGEMENT:
                assert (await client.request(method, path, headers=CHANGE)).status_code == 404
                assert (await admin.request(method, path, headers=CHANGE)).status_code == 200
            assert (await admin.post("/v2/repository/models/tiny/load")).status_code == 401
            assert (await admin.get("/readyz")).status_code == 200
            assert (await admin.post("/predict")).status_code == 404
        assert "model_repository" not in (await client.get("/v2")).json()["extensions"]
        assert "/v2/repository/index" not in (await client.get("/openapi.json")).json()["paths"]


@pytest.mark.parametrize(
    "origins", ["*", "page.example", "https://page.example/path", "https://a.example https://b.example"]
)
def test_an_origin_is_a_scheme_and_a_host(origins: str):
    from serving.errors import ConfigurationError
    from serving.settings import read_settings

    with pytest.raises(ConfigurationError, match="is no origin; expected one like"):
        read_settings({"MNIST_CORS_ORIGINS": origins})
