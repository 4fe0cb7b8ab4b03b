"""Tokens, addresses and certificates, over gRPC."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from serving.grpc.calls import address_of
from serving.worker import Worker
from tests.certificates import write_certificate
from tests.ports import free_ports
from tests.serving.grpc.test_service import code_of, method, pb, request
from tests.serving.v2_worker import tiny_worker

ASK, CHANGE = (("authorization", "Bearer ask"),), (("authorization", "Bearer change"),)


@asynccontextmanager
async def serving(root: Path, port: int, **settings: Any) -> AsyncIterator[Worker]:
    async with tiny_worker(root, host="127.0.0.1", v2_port=0, grpc_port=port, stop_s=1.0, **settings) as made:
        for listener in made._listeners:
            await listener.start()
        yield made


async def asking() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
    """Yield nothing for a while: grpc.aio reports a message that it cannot send any more instead of the status."""
    await asyncio.sleep(10)
    yield reflection_pb2.ServerReflectionRequest(list_services="")


async def test_calls_need_the_token_and_health_does_not(tmp_path: Path, free_port: int):
    async with (
        serving(tmp_path, free_port, token="ask", admin_token="change"),
        grpc.aio.insecure_channel(f"127.0.0.1:{free_port}") as channel,
    ):
        infer, load = method(channel, "ModelInfer"), method(channel, "RepositoryModelLoad")
        for metadata in ((), (("authorization", "Bearer wrong"),)):
            assert (await code_of(infer(request(), metadata=metadata)))[0] == "UNAUTHENTICATED"
        assert len((await infer(request(), metadata=ASK)).outputs) == 2
        wanted = pb.RepositoryModelLoadRequest(model_name="tiny")
        assert (await code_of(load(wanted, metadata=ASK)))[0] == "UNAUTHENTICATED"
        await load(wanted, metadata=CHANGE)
        assert (await method(channel, "ServerReady")(pb.ServerReadyRequest())).ready
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError, match="UNIMPLEMENTED"):
            await anext(aiter(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(asking())))


async def test_an_address_that_calls_too_often_is_refused_with_a_time(tmp_path: Path, free_port: int):
    async with (
        serving(tmp_path, free_port, rate_limit=1.0),
        grpc.aio.insecure_channel(f"127.0.0.1:{free_port}") as channel,
    ):
        ask = method(channel, "ServerMetadata")
        for _ in range(2):
            await ask(pb.ServerMetadataRequest())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(pb.ServerMetadataRequest())
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert ("retry-after", "1") in [tuple(pair) for pair in caught.value.trailing_metadata()]


async def test_a_port_for_administrators_takes_the_repository_from_this_one(tmp_path: Path, free_port: int):
    async with (
        serving(tmp_path, free_port, admin_port=0, admin_token="change") as worker,
        grpc.aio.insecure_channel(f"127.0.0.1:{free_port}") as channel,
    ):
        assert (await method(channel, "RepositoryIndex")(pb.RepositoryIndexRequest())).models
        assert worker.admin_app is None
    (tmp_path / "more").mkdir()
    admin_port, port = free_ports(2)
    async with (
        serving(tmp_path / "more", port, admin_port=admin_port, admin_token="change"),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        index = method(channel, "RepositoryIndex")(pb.RepositoryIndexRequest(), metadata=CHANGE)
        load = method(channel, "RepositoryModelLoad")(pb.RepositoryModelLoadRequest(), metadata=CHANGE)
        assert [(await code_of(call))[0] for call in (index, load)] == ["UNIMPLEMENTED"] * 2
        assert (await method(channel, "ServerLive")(pb.ServerLiveRequest())).live


async def shown(port: int, root: bytes) -> bool:
    """Return whether a server shows a certificate that `root` vouches for."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    credentials = grpc.ssl_channel_credentials(root)
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
        try:
            return (await method(channel, "ServerLive")(pb.ServerLiveRequest(), timeout=20)).live
        except grpc.aio.AioRpcError:
            return False


async def test_an_encrypted_port_shows_a_new_certificate_without_a_restart(
    tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
):
    given: list[object] = []
    make = grpc.ssl_server_certificate_configuration
    monkeypatch.setattr(grpc, "ssl_server_certificate_configuration", lambda pairs: given.extend(pairs) or make(pairs))
    chain, key = write_certificate(tmp_path, "one")
    first = chain.read_bytes()
    async with serving(tmp_path / "models", free_port, tls_cert=str(chain), tls_key=str(key)) as worker:
        assert await shown(free_port, first)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{free_port}") as channel:
            assert (await code_of(method(channel, "ServerLive")(pb.ServerLiveRequest(), timeout=20)))[0] != "OK"
        write_certificate(tmp_path, "two")
        assert worker._certificate is not None
        worker._certificate.refresh()
        assert await shown(free_port, chain.read_bytes())
        assert not await shown(free_port, first)
        # Not one for each handshake: gRPC makes its TLS context anew for each.
        assert [shown_chain for _, shown_chain in given] == [first, chain.read_bytes()]


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.1:5000", "192.0.2.1"),
        ("ipv6:%5B2001:db8::1%5D:5000", "2001:db8::1"),
        ("ipv6:[::1]:5000", "::1"),
        ("unix:", ""),
    ],
)
def test_the_address_is_read_from_the_name_that_grpc_gives_a_caller(peer: str, address: str):
    assert address_of(peer) == address
