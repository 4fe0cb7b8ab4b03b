"""A listener among clients that send too much, too little or nothing."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.http import guard
from serving.http.connections import MAX_PIPELINED
from serving.http.errors import json_response
from serving.http.express import Express
from serving.http.guard import Guard
from serving.http.listener import Listener
from tests.serving.http.app import App

ASK = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"

Connect = Callable[[], Any]


class Client:
    """One connection, by its bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        """Return status, headers and content of the next answer; (0, {}, None) if the connection ends instead."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0, {}, None
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines if line)
        body = await self.reader.readexactly(int(headers["content-length"]))
        return int(status.split()[1]), headers, orjson.loads(body)

    async def ask(self) -> int:
        await self.send(ASK)
        return (await self.answer())[0]


@asynccontextmanager
async def listening(app: App, port: int, asgi: Any = None, **limits: Any) -> AsyncIterator[Connect]:
    """Yield a function that connects to a listener within limits; its attribute is the guard of these."""
    settings = app.settings.model_copy(update={"stop_s": 1.0} | limits)
    express = None if asgi else Express(app.catalogue, app.preparer, settings, app.metrics)
    watch = Guard(settings, app.metrics)
    listener = Listener(asgi or app.asgi, "127.0.0.1", port, watch, express)
    await listener.start()
    clients: list[Client] = []

    async def connect() -> Client:
        while True:
            try:
                clients.append(Client(*await asyncio.open_connection("127.0.0.1", port)))
                return clients[-1]
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)

    connect.guard = watch
    try:
        async with asyncio.timeout(60):
            yield connect
    finally:
        for client in clients:
            client.writer.close()
        await listener.stop()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what the listener does, in the time that a test has."""
    while not condition():
        await asyncio.sleep(0.01)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "LOOK_S", 0.02)


async def test_every_answer_carries_security_headers_and_tells_no_server(app: App, free_port: int):
    async with listening(app, free_port) as connect:
        for sent, status in (
            (ASK, 200),
            (b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n", 404),
            (b"nonsense\r\n\r\n", 400),
        ):
            client = await connect()
            await client.send(sent)
            found, headers, content = await client.answer()
            assert found == status
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert "server" not in headers
            assert status == 200 or list(content) == ["error"]


async def test_a_head_that_does_not_end_in_time_is_408(app: App, free_port: int, quick: None):
    async with listening(app, free_port, head_timeout_s=1.0) as connect:
        client, silent = await connect(), await connect()
        for piece in (b"GET /livez HTTP/1.1\r\n", b"a: b\r\n"):
            await client.send(piece)
            await asyncio.sleep(0.05)
        status, headers, content = await client.answer()
        assert (status, headers["connection"]) == (408, "close")
        assert content == {"error": "the head of the request did not arrive in time"}
        assert await silent.answer() == (0, {}, None)
    assert app.value("rejected_total", reason="head_timeout") == 1


async def test_the_second_head_of_a_connection_has_its_time_too_and_an_idle_one_may_wait(
    app: App, free_port: int, quick: None
):
    async with listening(app, free_port, head_timeout_s=1.0) as connect:
        slow, idle = await connect(), await connect()
        assert [await slow.ask(), await idle.ask()] == [200, 200]
        await slow.send(ASK[:10])
        assert (await slow.answer())[0] == 408
        assert await idle.ask() == 200


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("head", [b"GET /%b HTTP/1.1\r\n", b"GET / HTTP/1.1\r\na: %b\r\n", b"GET / HTTP/1.1\r\n%b"])
async def test_a_head_over_the_limit_is_431_in_one_piece_or_many(app: App, free_port: int, head: bytes, whole: bool):
    filling = b"a" * 2000 if b"%b HTTP" in head or b": %b" in head else b"".join(b"h%d: v\r\n" % n for n in range(300))
    sent = head % filling + b"\r\n"
    async with listening(app, free_port, max_head_bytes=1024) as connect:
        client = await connect()
        size = len(sent) if whole else 300
        for start in range(0, len(sent), size):
            await client.send(sent[start : start + size])
            await asyncio.sleep(0.01)
        status, _, content = await client.answer()
        assert (status, content["error"]) == (431, "the head of the request is larger than the limit of 1024 bytes")
    assert app.value("rejected_total", reason="head_too_large") == 1


async def test_a_head_within_the_limit_may_stand_before_a_large_body(app: App, free_port: int):
    async with listening(app, free_port, max_head_bytes=1024) as connect:
        client = await connect()
        body = b'{"pixels": [' + b",".join([b"1"] * 784) + b"]}"
        await client.send(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        assert (await client.answer())[0] == 200


@pytest.mark.parametrize("flood", [b"t: " + b"a" * 2000, b"t: a\r\n" * 400])
async def test_endless_trailers_of_a_chunked_body_are_cut(
    app: App, free_port: int, flood: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(guard, "LINGER_S", 0.05)
    async with listening(app, free_port, max_head_bytes=1024) as connect:
        client = await connect()
        await client.send(b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n")
        await asyncio.sleep(0.05)
        await client.send(flood)
        assert [(await client.answer())[0] for _ in range(2)] == [431, 0]


@pytest.mark.parametrize(
    ("flood", "status", "reason"),
    [
        (b"GET /livez HTTP/1.1\r\nhost: x\r\n" + b"a:\r\n" * 1002, 431, "head_too_large"),
        (
            b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"a:\r\n" * 1002,
            431,
            "head_too_large",
        ),
        (
            b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 4098,
            400,
            "malformed",
        ),
    ],
)
async def test_what_is_cut_into_crumbs_is_refused(
    app: App, free_port: int, flood: bytes, status: int, reason: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(guard, "LINGER_S", 0.05)
    async with listening(app, free_port) as connect:
        client = await connect()
        await client.send(flood)
        assert (await client.answer())[0] == status
    assert app.value("rejected_total", reason=reason) == 1


@pytest.mark.parametrize(("chunk", "count"), [(b"x", 4096), (b"x" * 256, 5000)])
async def test_as_many_chunks_as_are_allowed_are_put_together(app: App, free_port: int, chunk: bytes, count: int):
    async with listening(app, free_port) as connect:
        client = await connect()
        head = b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        await client.send(head + b"%x\r\n%b\r\n" % (len(chunk), chunk) * count + b"0\r\n\r\n")
        # Whole, and no picture.
        assert (await client.answer())[0] == 422


async def test_trailers_are_not_taken_for_headers(app: App, free_port: int):
    seen = []

    async def show(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        seen.extend(name for name, _ in scope["headers"])
        await json_response({})(scope, receive, send)

    async with listening(app, free_port, show) as connect:
        client = await connect()
        head = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        await client.send(head + b"0\r\nauthorization: x\r\n\r\n")
        assert (await client.answer())[0] == 200
    assert seen == [b"host", b"transfer-encoding"]


async def test_more_requests_than_may_be_sent_ahead_are_429_but_not_at_once(
    app: App, free_port: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(guard, "LINGER_S", 0.3)
    async with listening(app, free_port) as connect:
        some, many = await connect(), await connect()
        await some.send(ASK * MAX_PIPELINED)
        assert [(await some.answer())[0] for _ in range(MAX_PIPELINED)] == [200] * MAX_PIPELINED
        began = time.monotonic()
        await many.send(ASK * 1000)
        status, headers, body = await many.answer()
        assert (status, headers["connection"]) == (429, "close")
        assert "sent ahead" in body["error"]
        assert time.monotonic() - began > 0.25
        assert await many.answer() == (0, {}, None)
        assert await some.ask() == 200


async def test_nothing_is_said_in_the_middle_of_an_answer(app: App, free_port: int):
    async def begin(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    async with listening(app, free_port, begin) as connect:
        client = await connect()
        await client.send(ASK)
        assert b"200" in await client.reader.readline()
        await client.send(ASK * 1000)
        rest = await client.reader.read()
        assert rest.endswith(b"a")
        assert b"429" not in rest


async def test_a_new_connection_takes_the_place_of_one_that_sends_nothing_or_is_idle(
    app: App, free_port: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(guard, "SILENCE_S", 0.0)
    async with listening(app, free_port, max_connections=3) as connect:
        silent, idle, late = [await connect() for _ in range(3)]
        assert [await idle.ask(), await late.ask()] == [200, 200]
        fresh = [await connect()]
        assert await fresh[0].ask() == 200
        assert await silent.answer() == (0, {}, None)
        fresh.append(await connect())
        assert await fresh[1].ask() == 200
        assert await idle.answer() == (0, {}, None)
        assert [await each.ask() for each in (late, *fresh)] == [200] * 3
    assert app.value("rejected_total", reason="connections") == 0


async def test_callers_who_come_together_take_the_places_of_idle_connections_and_not_each_others(
    app: App, free_port: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(guard, "SILENCE_S", 60.0)
    async with listening(app, free_port, max_connections=3) as connect:
        idle = [await connect() for _ in range(3)]
        assert [await each.ask() for each in idle] == [200] * 3
        together = [await connect() for _ in range(3)]
        assert [await each.ask() for each in together] == [200] * 3
        assert [await each.answer() for each in idle] == [(0, {}, None)] * 3
    assert app.value("rejected_total", reason="connections") == 0


async def test_where_all_have_only_just_come_the_oldest_gives_way(app: App, free_port: int):
    async with listening(app, free_port, max_connections=2) as connect:
        first, second, third = [await connect() for _ in range(3)]
        assert await first.answer() == (0, {}, None)
        assert [await second.ask(), await third.ask()] == [200, 200]


async def test_where_all_send_slow_bodies_the_slowest_gives_way(
    app: App, free_port: int, monkeypatch: pytest.MonkeyPatch
):
    async with listening(app, free_port, max_connections=2) as connect:
        slow = [await connect() for _ in range(2)]
        for count, each in enumerate(slow, 1):
            await each.send(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{")
            await until(lambda count=count: len(connect.guard.receiving) == count)
        monkeypatch.setattr(guard, "SLOW_BODY_S", 60.0)
        assert (await (await connect()).answer())[0] == 429
        monkeypatch.setattr(guard, "SLOW_BODY_S", 0.0)
        probe = await connect()
        assert await probe.ask() == 200
        assert await slow[0].answer() == (0, {}, None)
        await probe.ask()
        await slow[1].send(b" " * 999)
        assert (await slow[1].answer())[0] == 400
    assert app.value("rejected_total", reason="connections") == 2


async def test_of_a_connection_that_asks_for_nothing_no_parser_is_made(
    app: App, free_port: int, monkeypatch: pytest.MonkeyPatch
):
    opened = []
    monkeypatch.setattr(HttpToolsProtocol, "__init__", lambda self, **_: opened.append(self))
    async with listening(app, free_port) as connect:
        for _ in range(3):
            client = await connect()
            client.writer.close()
        silent = await connect()
        await asyncio.sleep(0.05)
        assert opened == []
        monkeypatch.undo()
        assert await silent.ask() == 200


async def test_where_all_connections_are_busy_another_is_429(app: App, free_port: int):
    go, asked = asyncio.Event(), []

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope["path"])
        await go.wait()
        await json_response({})(scope, receive, send)

    async with listening(app, free_port, wait, max_connections=2) as connect:
        busy = [await connect() for _ in range(2)]
        for each in busy:
            await each.send(ASK)
        await until(lambda: len(asked) == 2)
        status, headers, content = await (await connect()).answer()
        assert (status, headers["retry-after"]) == (429, "1")
        assert "too many connections" in content["error"]
        go.set()
        assert [(await each.answer())[0] for each in busy] == [200, 200]
    assert app.value("rejected_total", reason="connections") == 1


async def test_who_does_not_take_the_answer_is_cut_off(app: App, free_port: int, quick: None):
    given_up = asyncio.Event()

    async def pour(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(1000):
                await send({"type": "http.response.body", "body": bytes(1_000_000), "more_body": True})
        finally:
            given_up.set()

    async with listening(app, free_port, pour, body_timeout_s=0.2) as connect:
        await (await connect()).send(ASK)
        await given_up.wait()
    assert app.value("rejected_total", reason="answer_timeout") == 1


async def test_those_who_were_refused_are_let_go_soon(app: App, free_port: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guard, "MAX_LINGERING", 2)
    async with listening(app, free_port) as connect:
        refused = [await connect() for _ in range(3)]
        for each in refused:
            await each.send(b"nonsense\r\n\r\n")
            assert (await each.answer())[0] == 400
        # The first is cut off when there are too many, the others when their time is over, whatever they send.
        await refused[2].send(b"more")
        for each in refused:
            while await each.reader.read(1):
                pass
            while not each.writer.is_closing():
                await asyncio.sleep(0.05)
                each.writer.write(b"x")


async def test_an_upgrade_to_web_sockets_is_answered_as_http(app: App, free_port: int):
    async with listening(app, free_port) as connect:
        client = await connect()
        await client.send(ASK[:-2] + b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\n\r\n")
        assert (await client.answer())[0] == 200


OFFER = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: %b\r\nhttp2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAA\r\n"


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"TLS/1.0"])
@pytest.mark.parametrize("size", [10_000, 100, 7, 1])
async def test_what_follows_an_offer_of_another_protocol_is_read(app: App, free_port: int, protocol: bytes, size: int):
    async with listening(app, free_port) as connect:
        client = await connect()
        pipelined = post(head=OFFER % protocol) * 3 + ASK
        for start in range(0, len(pipelined), size):
            await client.send(pipelined[start : start + size])
            await asyncio.sleep(0)
        assert [(await client.answer())[0] for _ in range(4)] == [200] * 4
        chunked = b"POST /predict HTTP/1.1\r\nhost: x\r\n%btransfer-encoding: chunked\r\n\r\n" % (OFFER % protocol)
        body = post().partition(b"\r\n\r\n")[2]
        await client.send(b"%b%x\r\n%b\r\n0\r\n\r\n" % (chunked, len(body), body))
        assert (await client.answer())[0] == 200
    assert counted(app) == 4


async def test_an_offer_of_another_protocol_is_within_the_limits(app: App, free_port: int):
    async with listening(app, free_port, max_head_bytes=1000) as connect:
        client = await connect()
        await client.send(post(head=OFFER % b"h2c" + b"x: %b\r\n" % (b"y" * 1000)))
        assert (await client.answer())[0] == 431
        many = await connect()
        await many.send((ASK[:-2] + OFFER % b"h2c" + b"\r\n") * 100)
        assert (await many.answer())[0] == 429


async def test_a_tunnel_is_refused(app: App, free_port: int):
    async with listening(app, free_port) as connect:
        client = await connect()
        await client.send(b"CONNECT example.org:443 HTTP/1.1\r\nhost: x\r\n\r\nwhatever")
        assert (await client.answer())[0] in {400, 404, 405}


@pytest.mark.parametrize("late", [b"x", b""])
async def test_a_caller_that_was_answered_before_its_body_came_is_idle(
    app: App, free_port: int, late: bytes, monkeypatch: pytest.MonkeyPatch
):
    async with listening(app, free_port, max_connections=1) as connect:
        for _ in range(2):
            client = await connect()
            await client.send(b"POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n")
            assert (await client.answer())[0] == 404
            await client.send(late)
        other = await connect()
        assert await other.ask() == 200
        await other.send(b"POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n")
        assert (await other.answer())[0] == 404
        await other.send(late)
        monkeypatch.setattr(guard, "KEEP_ALIVE_S", 0.5)
        assert await other.reader.read() == b""


def post(body: bytes = json.dumps({"pixels": [1] * 100 + [0] * 684}).encode(), head: bytes = b"") -> bytes:
    return b"POST /predict HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)


def counted(app: App, status: str = "200") -> float | None:
    labels = {"protocol": "http", "method": "POST", "route": "/predict", "model": "tiny", "status": status}
    return app.value("requests_total", **labels)


@pytest.mark.parametrize("size", [1, 37, 200, 10_000])
async def test_a_prediction_is_the_same_whole_or_in_pieces(app: App, free_port: int, size: int):
    async with listening(app, free_port) as connect:
        whole, pieces = await connect(), await connect()
        await whole.send(post())
        status, headers, content = await whole.answer()
        assert (status, content["predictions"][0]["source"]) == (200, 0)
        for start in range(0, len(post()), size):
            await pieces.send(post()[start : start + size])
            await asyncio.sleep(0)
        found = await pieces.answer()
        assert (found[0], found[2]) == (200, content)
        volatile = {"date": "", "x-request-id": ""}
        assert found[1] | volatile == headers | volatile
        assert await whole.ask() == await pieces.ask() == 200
    assert counted(app) == 2


async def test_answers_keep_the_order_of_requests_that_are_sent_together(app: App, free_port: int):
    async with listening(app, free_port) as connect:
        client = await connect()
        await client.send(post() + ASK + post(b"x") + post(head=b"x-request-id: last\r\n"))
        answers = [await client.answer() for _ in range(4)]
        assert [status for status, _, _ in answers] == [200, 200, 422, 200]
        assert answers[3][1]["x-request-id"] == "last"


async def test_one_connection_cannot_have_more_than_a_few_predictions_at_one_go(
    app: App, free_port: int, monkeypatch: pytest.MonkeyPatch
):
    at_once = []
    answer = Express.answer

    def watch(self: Express, *request: Any) -> bytes | None:
        at_once.append(1)
        return answer(self, *request)

    monkeypatch.setattr(Express, "answer", watch)
    app.catalogue.get().batcher.singly = True
    async with listening(app, free_port) as connect:
        client = await connect()
        await client.send(post(b'{"pixels": [' + b"1," * 783 + b"0]}") * (MAX_PIPELINED + 3))
        assert [(await client.answer())[0] for _ in range(MAX_PIPELINED + 3)] == [200] * (MAX_PIPELINED + 3)
    assert len(at_once) == MAX_PIPELINED


async def test_an_answer_that_ends_the_connection_says_so(app: App, free_port: int):
    async with listening(app, free_port) as connect:
        client = await connect()
        await client.send(post(head=b"connection: close\r\n"))
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await client.answer() == (0, {}, None)


async def test_a_chunked_prediction_is_answered(app: App, free_port: int):
    async with listening(app, free_port) as connect:
        client = await connect()
        body = post().partition(b"\r\n\r\n")[2]
        head = b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        pieces = b"".join(b"%x\r\n%b\r\n" % (1, body[place : place + 1]) for place in range(len(body)))
        await client.send(head + pieces + b"0\r\n\r\n")
        assert (await client.answer())[0] == 200


async def test_a_connection_that_asks_for_nothing_is_closed_in_the_end(
    app: App, free_port: int, quick: None, monkeypatch: pytest.MonkeyPatch
):
    async with listening(app, free_port) as connect:
        client, other = await connect(), await connect()
        await client.send(post())
        assert (await client.answer())[0] == 200
        assert await other.ask() == 200
        monkeypatch.setattr(guard, "KEEP_ALIVE_S", 0.2)
        assert await client.answer() == await other.answer() == (0, {}, None)


def test_uvicorn_has_what_is_built_upon():
    assert "_start_asgi_task" in vars(HttpToolsProtocol)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /livez HTTP/1.1\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nhost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost:\r\n\r\n", 200),
        (b"GET /livez HTTP/1.0\r\n\r\n", 200),
    ],
)
async def test_a_request_names_one_host(app: App, free_port: int, head: bytes, status: int):
    async with listening(app, free_port) as connect:
        client = await connect()
        await client.send(head)
        assert (await client.answer())[0] == status
