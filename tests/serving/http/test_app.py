import asyncio
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.errors import NotReady
from tests.serving.http.app import App

PIXELS = {"pixels": [1] + [0] * 783}


async def test_liveness_answers_before_the_models_are_loaded(models: Path, executor: ThreadPoolExecutor):
    app = App(models, executor)
    assert [(await app.client.get(path)).status_code for path in ("/livez", "/healthz", "/readyz")] == [200, 200, 503]
    await app.catalogue.start()
    assert (await app.client.get("/readyz")).json() == {"ready": True}


async def test_draining_fails_readiness_closes_connections_and_still_answers(app: App):
    app.catalogue.drain()
    assert (await app.client.get("/readyz")).status_code == 503
    assert (await app.client.get("/livez")).status_code == 200
    answer = await app.client.post("/predict", json=PIXELS)
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/predict", 405),
        ("POST", "/livez", 405),
        ("POST", "/predict/", 404),
        ("GET", "/%2e%2e/etc", 404),
        ("AAA1", "/predict", 405),
    ],
)
async def test_what_fits_no_route_is_answered_as_json(app: App, method: str, path: str, status: int):
    answer = await app.client.request(method, path)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert answer.headers["content-type"] == "application/json"


async def test_a_request_is_told_by_its_route():
    scopes = []

    async def answer(request: Request) -> Response:
        scopes.append(request.scope)
        return Response()

    route = Route("/models/{name}", answer)
    transport = httpx.ASGITransport(Starlette(routes=[route]))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        await client.get("/models/tiny")
    assert scopes[0]["route"] is route


async def test_metrics_come_in_both_formats(app: App):
    await app.client.post("/predict", json=PIXELS)
    plain = await app.client.get("/metrics")
    assert (
        'mnist_requests_total{method="POST",model="tiny",protocol="http",route="/predict",status="200"} 1.0'
        in plain.text
    )
    openmetrics = await app.client.get("/metrics", headers={"accept": "application/openmetrics-text"})
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert list(text_string_to_metric_families(openmetrics.text))


async def series(app: App) -> int:
    return len((await app.client.get("/metrics")).text.splitlines())


async def test_whatever_is_sent_the_number_of_series_stays(app: App):
    async def send(number: int) -> None:
        await app.client.get(f"/path{number}")
        await app.client.request(f"AAA{number}", "/predict")
        await app.client.post(f"/predict?model=none{number}", json=PIXELS)
        await app.client.post("/predict", json=PIXELS, headers={"x-request-id": f"id{number}"})

    await send(0)
    await series(app)
    before = await series(app)
    for number in range(1, 200):
        await send(number)
    assert await series(app) == before
    labels = {"protocol": "http", "route": "/predict", "model": "unknown", "method": "POST", "status": "404"}
    assert app.value("requests_total", **labels) == 200


async def test_a_request_id_is_given_back(app: App):
    answer = await app.client.get("/livez", headers={"x-request-id": "my-id:1"})
    assert answer.headers["x-request-id"] == "my-id:1"


@pytest.mark.parametrize("sent", [None, "", "a b", 'a"b', "x" * 129, "ä"])
async def test_a_bad_or_absent_request_id_is_replaced(app: App, sent: str | None):
    headers = {} if sent is None else {"x-request-id": sent.encode()}
    given = (await app.client.get("/livez", headers=headers)).headers["x-request-id"]
    assert len(given) == 32
    assert given.isalnum()


async def test_an_unknown_exception_is_logged_once_and_its_text_stays_inside(
    models: Path, executor: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
):
    async def fail(_: Request) -> Response:
        raise ValueError("secret")

    app = App(models, executor, (Route("/fail", fail),))
    answer = await app.client.get("/fail", headers={"x-request-id": "abc"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "abc")
    assert answer.json() == {"error": "internal error; the log knows more under request id abc"}
    assert [record.exc_info is not None for record in caplog.records] == [True]
    assert "secret" in caplog.text


async def test_the_fault_of_a_client_leaves_no_traceback(app: App, caplog: pytest.LogCaptureFixture):
    await app.client.post("/predict", content="{")
    await app.client.get("/nothing")
    assert [record for record in caplog.records if record.exc_info] == []


async def test_an_error_of_another_protocols_route_is_answered_alike(models: Path, executor: ThreadPoolExecutor):
    async def refuse(_: Request) -> Response:
        raise NotReady("not yet")

    answer = await App(models, executor, (Route("/v2/x", refuse),)).client.get("/v2/x")
    assert (answer.status_code, answer.json()) == (503, {"error": "not yet"})


@pytest.mark.parametrize("on", [True, False])
async def test_the_access_log_is_one_line_per_request_if_asked_for(
    models: Path, executor: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture, on: bool
):
    caplog.set_level(logging.INFO)
    await App(models, executor, access_log=on).client.get("/livez")
    lines = [record for record in caplog.records if record.message == "request"]
    assert [(record.method, record.path, record.status) for record in lines] == [("GET", "/livez", 200)] * on


async def wait_until(condition: object) -> None:
    while not condition():  # type: ignore[operator]
        await asyncio.sleep(0.001)


async def test_the_work_for_a_caller_who_has_gone_is_given_up(app: App):
    """The caller sends a body and leaves; its images wait in a queue that does not move, and free their place."""
    batcher = app.catalogue.get().batcher
    batcher._busy = True
    leave = asyncio.Event()
    body = json.dumps(PIXELS).encode()
    messages = [{"type": "http.request", "body": body}, {"type": "http.disconnect"}]

    async def receive() -> dict[str, object]:
        if len(messages) == 1:
            await leave.wait()
        return messages.pop(0)

    async def send(_: object) -> None:
        raise AssertionError("nobody is there to be answered")

    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": []}
    async with asyncio.timeout(20):
        task = asyncio.ensure_future(app.asgi(scope, receive, send))
        await wait_until(lambda: batcher.waiting_images == 1)
        leave.set()
        await task
    assert batcher.waiting_images == 0
    labels = {"protocol": "http", "route": "/predict", "model": "tiny", "method": "POST", "status": "499"}
    assert app.value("requests_total", **labels) == 1


async def ask_a_busy_model(app: App) -> "asyncio.Future[httpx.Response]":
    """Return a request whose image waits in a queue that does not move."""
    batcher = app.catalogue.get().batcher
    batcher._busy = True
    task = asyncio.ensure_future(app.client.post("/predict", json=PIXELS))
    async with asyncio.timeout(20):
        await wait_until(lambda: batcher.waiting_images == 1)
    return task


async def test_a_stop_of_the_server_is_not_taken_for_a_caller_who_left(app: App):
    task = await ask_a_busy_model(app)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_request_that_is_not_done_when_the_server_stops_is_answered(app: App):
    task = await ask_a_busy_model(app)
    app.catalogue.drain()
    task.cancel()
    async with asyncio.timeout(20):
        answer = await task
    assert answer.status_code == 503
    assert answer.json() == {"error": "the server stops, and this request was not done in the time that it waits"}
    assert (
        app.value("requests_total", protocol="http", route="/predict", model="tiny", method="POST", status="503") == 1
    )


async def test_other_kinds_of_connection_are_passed_on(app: App):
    with pytest.raises((AssertionError, RuntimeError, KeyError, httpx.HTTPError)):
        await app.asgi({"type": "nonsense"}, None, None)  # type: ignore[arg-type]
