"""Ways around the token, the rate limit and the administrators' port that were tried on the real service."""

import json
import re
import socket

import grpc
import httpx
import pytest

from tests.e2e.conftest import Start
from tests.e2e.server import Server, wait_until
from tests.ports import free_ports

PORTS = ["port", "v2_port", "admin_port"]
BODY = json.dumps({"pixels": [1] * 784}).encode()

# Paths that another parser might take for one that is open, or for one that is not protected.
PATHS = """/predict //predict /predict/ /./predict /%70redict /predict%2f /predict%00 /PREDICT /web/../predict
    /web/%2e%2e/predict /web/..%2fpredict /livez/../predict /livez/predict /livez;/predict /livez%2f..%2fpredict
    /docs/../models /docs/models /v2/health/live/../../models/stats /v2/health/../models/mnist-cnn/infer
    /v2/models/mnist-cnn/infer /v2/models/mnist-cnn/versions/1/infer /v2/models/mnist-cnn /v2/models/stats /v2 /models
    /classify /classify/ //classify /schema.json /openapi.json /explain /metrics //metrics /v2/repository/index
    /v2/repository/models/other/unload http://x/predict http://x/web/../predict *"""
METHODS = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "TRACE", "livez"]

# Headers by which a proxy would tell another path, method, caller or address.
TOLD = {
    "x-original-url": "/livez",
    "x-rewrite-url": "/livez",
    "x-http-method-override": "GET",
    "x-forwarded-for": "127.0.0.1",
    "x-forwarded-prefix": "/web",
    "x-forwarded-user": "admin",
    "forwarded": "for=127.0.0.1",
    "host": "localhost",
    "cookie": "token=ask",
    "x-api-key": "ask",
    "proxy-authorization": "Bearer ask",
}


@pytest.fixture(scope="module")
def server(start: Start) -> Server:
    (admin_port,) = free_ports(1)
    tokens = {"MNIST_TOKEN": "ask", "MNIST_ADMIN_TOKEN": "change", "MNIST_ADMIN_PORT": str(admin_port)}
    started = start(**tokens)
    started.admin_port = admin_port
    wait_until(lambda: (answer := started.get("/readyz")) is not None and answer.status_code == 200)
    return started


def ask(server: Server, port: str, request_line: str, *headers: str) -> tuple[int, bytes]:
    """Return status and content of the answer to a request whose path nobody has touched."""
    with socket.create_connection(("127.0.0.1", getattr(server, port)), 10) as connection:
        head = "\r\n".join([f"{request_line} HTTP/1.1", *headers, f"content-length: {len(BODY)}", "connection: close"])
        connection.sendall(head.encode("latin-1") + b"\r\n\r\n" + BODY)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    found = re.match(rb"HTTP/1.1 (\d+) ", received)
    assert found, received
    return int(found[1]), received.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("method", METHODS)
def test_no_path_and_no_method_leads_past_the_token(server: Server, port: str, method: str):
    for path in PATHS.split():
        status, content = ask(server, port, f"{method} {path}", "host: x", "content-type: application/json")
        assert status in (400, 401, 404, 405), (method, path, content)
        assert not content or set(json.loads(content)) == {"error"}


WRONG = """|ask|Bearer|Bearer |Bearer  |Bearer as|Bearer askk|Bearer ASK|Bearer ask ask|Basic ask|Bearer\task|Digest ask
Bearer ask,Bearer change|Bearer \xe4sk|Bearer null|Bearer ask\0""".replace("\n", "|")


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("authorization", WRONG.split("|"))
def test_nothing_but_the_whole_token_opens(server: Server, port: str, authorization: str):
    status, _ = ask(server, port, "GET /v2/models/stats", "host: x", f"authorization: {authorization}")
    assert status in (400, 401)


@pytest.mark.parametrize("port", PORTS)
def test_no_header_stands_in_for_the_token(server: Server, port: str):
    told = [f"{name}: {value}" for name, value in TOLD.items()]
    assert ask(server, port, "POST /predict", *told)[0] == 401
    wrong_first = "host: x", "authorization: Bearer wrong", "authorization: Bearer ask"
    assert ask(server, port, "POST /predict", *wrong_first)[0] == 401


@pytest.mark.parametrize("port", ["port", "v2_port"])
def test_the_token_opens_what_it_should(server: Server, port: str):
    for scheme in ("Bearer", "bearer"):
        headers = {"authorization": f"{scheme} ask"}
        answer = httpx.post(f"http://127.0.0.1:{getattr(server, port)}/predict", content=BODY, headers=headers)
        assert answer.status_code == 200
        assert httpx.get(f"http://127.0.0.1:{getattr(server, port)}/metrics", headers=headers).status_code == 404


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("path", ["/livez", "/predict"])
def test_an_upgrade_leads_nowhere(server: Server, port: str, path: str):
    for protocol in ("websocket", "h2c"):
        upgrade = "connection: upgrade", f"upgrade: {protocol}", "sec-websocket-version: 13", "sec-websocket-key: eHh4"
        assert ask(server, port, f"GET {path}", "host: x", *upgrade)[0] == (200 if path == "/livez" else 401)
    assert ask(server, port, "PRI *", "host: x")[0] in (400, 401)


# Headers by which two parsers may not agree where a request ends, and what follows them.
AMBIGUOUS = {
    "content-length: 6\r\ntransfer-encoding: chunked": "0\r\n\r\nG",
    "transfer-encoding: chunked\r\ncontent-length: 3": "0\r\n\r\nGET /livez HTTP/1.1\r\nhost: x\r\n\r\n",
    "content-length: 1\r\ncontent-length: 5": "1GET ",
    "content-length: 1, 1": "1",
    "content-length: +1": "1",
    "content-length : 1": "1",
    "x: a\r\n content-length: 1": "1",
    "transfer-encoding: xchunked": "0\r\n\r\n",
    "transfer-encoding: chunked\r\ntransfer-encoding: identity": "0\r\n\r\n",
    "transfer-encoding: chunked\r\nx: y": "-1\r\n1\r\n0\r\n\r\n",
    "transfer-encoding: chunked\r\nx: z": "fffffffffffffffff\r\n1\r\n0\r\n\r\n",
    "x: y\nz: content-length: 1": "1",
}


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("headers", AMBIGUOUS)
def test_no_request_hides_in_another(server: Server, port: str, headers: str):
    with socket.create_connection(("127.0.0.1", getattr(server, port)), 10) as connection:
        connection.sendall(f"GET /livez HTTP/1.1\r\nhost: x\r\n{headers}\r\n\r\n{AMBIGUOUS[headers]}".encode())
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    # It ended the connection; where a body is not read, its fault comes to light after the answer.
    assert re.findall(rb"HTTP/1.1 (\d+)", received) in ([b"400"], [b"200"], [])


def test_grpc_answers_health_alone_without_the_token(server: Server):
    calls = [f"/inference.GRPCInferenceService/{name}" for name in ("ModelInfer", "ServerMetadata", "RepositoryIndex")]
    calls += ["//inference.GRPCInferenceService/ServerLive", "/inference.GRPCInferenceService/ServerLive/../ModelInfer"]
    calls += ["/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "/grpc.channelz.v1.Channelz/GetServers"]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        for name in calls:
            with pytest.raises(grpc.RpcError, match=r"UNAUTHENTICATED|UNIMPLEMENTED"):
                channel.unary_unary(name)(b"", timeout=10)
        assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10) == b"\x08\x01"
        for metadata in ([("authorization", "Bearer wrong"), ("authorization", "Bearer ask")], [("token", "ask")]):
            with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
                channel.unary_unary(calls[1])(b"", metadata=metadata, timeout=10)


def told_addresses(server: Server, port: str) -> list[int]:
    """Return the statuses of requests that tell another address each."""
    told = [(f"x-forwarded-for: 192.0.2.{n}", f"x-real-ip: 192.0.2.{n}") for n in range(10)]
    return [ask(server, port, "GET /models", "host: x", *headers)[0] for headers in told]


def test_a_told_address_is_believed_of_those_alone_whom_the_operator_names(start: Start):
    for environ, believed in (({}, False), ({"FORWARDED_ALLOW_IPS": "127.0.0.1"}, True)):
        limited = start(MNIST_RATE_LIMIT="1", **environ)
        wait_until(lambda server=limited: (answer := server.get("/readyz")) and answer.status_code == 200)
        for port in ("port", "v2_port"):
            assert (429 not in told_addresses(limited, port)) is believed


def test_nothing_of_this_is_an_error_of_ours_or_in_the_log(server: Server):
    assert "Traceback" not in server.log
    assert [word for word in ("change", "Bearer", "wrong") if word in server.log] == []
    assert server.log.count("Invalid HTTP request") == 0
