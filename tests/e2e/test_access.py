"""The real service behind tokens and certificates, with a port for administrators, on every port."""

import os
import socket
import ssl
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import grpc
import httpx
import psutil
import pytest
from cryptography import x509

from serving.grpc.stubs import inference_pb2 as pb
from tests.certificates import write_certificate
from tests.e2e.conftest import Start
from tests.e2e.server import ROOT, Server, wait_until
from tests.ports import free_ports
from tests.serving.grpc import strangers

ASK, CHANGE = {"authorization": "Bearer ask"}, {"authorization": "Bearer change"}
PIXELS = {"pixels": [1] * 784}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("secrets")
    write_certificate(made, "one")
    (made / "tokens").write_text("ask\n")
    return made


@pytest.fixture(scope="module")
def server(start: Start, folder: Path) -> Server:
    (admin_port,) = free_ports(1)
    started = start(
        MNIST_TLS_CERT=str(folder / "tls.crt"),
        MNIST_TLS_KEY=str(folder / "tls.key"),
        MNIST_TOKEN_FILE=str(folder / "tokens"),
        MNIST_ADMIN_TOKEN="change",
        MNIST_ADMIN_PORT=str(admin_port),
    )
    started.admin_port = admin_port
    wait_until(lambda: answers(started, folder))
    return started


def trusting(folder: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=folder / "tls.crt")


def answers(server: Server, folder: Path) -> bool:
    assert server.process.poll() is None, server.log
    try:
        return httpx.get(f"https://127.0.0.1:{server.port}/readyz", verify=trusting(folder)).status_code == 200
    except httpx.TransportError:
        return False


def ports(server: Server) -> list[int]:
    return [server.port, server.v2_port, server.admin_port]


def test_every_http_port_is_encrypted_and_needs_the_token(server: Server, folder: Path):
    with httpx.Client(verify=trusting(folder)) as client:
        for port in (server.port, server.v2_port):
            url = f"https://127.0.0.1:{port}"
            assert client.post(f"{url}/predict", json=PIXELS).status_code == 401
            assert client.post(f"{url}/predict", json=PIXELS, headers=ASK).status_code == 200
            assert client.get(f"{url}/metrics", headers=ASK).status_code == 404
        classify = f"https://127.0.0.1:{server.port}/classify"
        body = {"images": [[[0] * 28] * 28]}
        assert [client.post(classify, json=body, headers=each).status_code for each in ({}, ASK)] == [401, 200]
        admin = f"https://127.0.0.1:{server.admin_port}"
        assert [client.get(f"{admin}/metrics", headers=each).status_code for each in ({}, ASK)] == [401, 200]
        load = f"{admin}/v2/repository/models/mnist-cnn/load"
        assert [client.post(load, headers=each).status_code for each in (ASK, CHANGE)] == [401, 200]
    for port in ports(server):
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/livez")


def test_the_health_command_reaches_an_encrypted_service(server: Server):
    command = [sys.executable, "-m", "serving", "health", "--timeout-s", "10"]
    environ = {name: server.environ[name] for name in server.environ if name.startswith(("MNIST_", "PORT"))}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "ready\n"), done.stderr


def shown(port: int) -> str:
    """Return the name in the certificate that a port shows."""
    pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=10)
    return x509.load_pem_x509_certificate(pem.encode()).subject.rfc4514_string()


def test_new_certificates_and_tokens_are_in_force_without_a_restart(server: Server, folder: Path):
    pids = server.worker_pids()
    assert {shown(port) for port in ports(server)} == {"CN=one"}
    write_certificate(folder, "two")
    (folder / "tokens").write_text("new\n")
    wait_until(lambda: {shown(port) for port in (*ports(server), server.grpc_port)} == {"CN=two"})

    def status(token: str) -> int:
        headers = {"authorization": f"Bearer {token}"}
        return httpx.get(
            f"https://127.0.0.1:{server.port}/models", headers=headers, verify=trusting(folder)
        ).status_code

    wait_until(lambda: (status("ask"), status("new")) == (401, 200))
    credentials = grpc.ssl_channel_credentials((folder / "tls.crt").read_bytes())
    with grpc.secure_channel(f"127.0.0.1:{server.grpc_port}", credentials) as channel:
        ask = channel.unary_unary(
            "/inference.GRPCInferenceService/ServerMetadata",
            pb.ServerMetadataRequest.SerializeToString,
            pb.ServerMetadataResponse.FromString,
        )
        assert ask(pb.ServerMetadataRequest(), metadata=(("authorization", "Bearer new"),), timeout=10).name
        with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
            ask(pb.ServerMetadataRequest(), timeout=10)
    assert server.worker_pids() == pids


def test_no_token_and_no_key_is_in_the_log(server: Server):
    assert [word for word in ("change", "Bearer", "PRIVATE KEY") if word in server.log] == []


def test_strangers_write_nothing_into_the_log(server: Server):
    before = server.log
    for port in (*ports(server), server.grpc_port):
        with socket.create_connection(("127.0.0.1", port), 10) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            # Each port hangs up, without a word or with an alert.
            with suppress(ConnectionResetError):
                while stranger.recv(1000):
                    pass
    assert server.log == before


def test_calls_that_no_grpc_client_would_make_write_nothing_into_the_log(server: Server, folder: Path):
    before = server.log
    for suffix, more, code in strangers.STRANGE:
        path = b"/inference.GRPCInferenceService/ServerLive" + suffix
        received = strangers.call(server.grpc_port, path, *more, tls=trusting(folder))
        assert strangers.status(code) in received
    assert server.log == before


@pytest.mark.slow
def test_connections_that_never_shake_hands_are_closed_in_time_and_keep_nobody_out(start: Start, folder: Path):
    write_certificate(folder, "three")
    tls = {"MNIST_TLS_CERT": str(folder / "tls.crt"), "MNIST_TLS_KEY": str(folder / "tls.key")}
    server = start(MNIST_HEAD_TIMEOUT_S="1", MNIST_MAX_CONNECTIONS="20", **tls)
    wait_until(lambda: answers(server, folder))
    (pid,) = server.worker_pids()
    with ExitStack() as stack:
        for port in (server.port, server.v2_port, server.grpc_port):
            before = psutil.Process(pid).num_fds()
            silent = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)) for _ in range(100)]
            if port != server.grpc_port:
                assert answers(server, folder)
            wait_until(lambda held=before: psutil.Process(pid).num_fds() <= held + 5, 8)
            assert len(silent) == 100
    assert answers(server, folder)
    # gRPC's core once died of these, and the worker with it.
    for _ in range(300):
        crowd = [socket.create_connection(("127.0.0.1", server.grpc_port), 10) for _ in range(100)]
        for one in crowd:
            one.close()
    assert answers(server, folder)
    assert server.worker_pids() == [pid]
