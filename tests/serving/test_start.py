import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.errors import ConfigurationError
from serving.settings import Settings
from serving.start import check_start
from tests.serving.tiny_model import write_tiny_model


@pytest.fixture
def taken() -> Iterator[int]:
    """Return a port that somebody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def settings(**given: object) -> Settings:
    return Settings.model_validate({"host": "127.0.0.1", "v2_port": 0, "grpc_port": 0} | given)


def test_free_ports_and_a_processor_are_fine(free_port: int):
    check_start(settings(v2_port=free_port))


@pytest.mark.parametrize("name", ["v2_port", "grpc_port"])
def test_a_taken_port_is_named(taken: int, name: str):
    with pytest.raises(ConfigurationError, match=f"{name.upper()}={taken}: cannot listen on 127.0.0.1"):
        check_start(settings(**{name: taken}))


def test_two_onnxruntimes_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("serving.installation.version", str)
    with pytest.raises(ConfigurationError, match=r"onnxruntime and onnxruntime-gpu and .* are both installed"):
        check_start(settings())


def test_ipv6_addresses_are_checked_too():
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    check_start(settings(host="::1", v2_port=0))


def test_a_device_that_is_not_there_is_refused(tmp_path: Path):
    write_tiny_model(tmp_path, "tiny", 1)
    with pytest.raises(ConfigurationError, match="device cuda: "):
        check_start(settings(models=tmp_path, default_model="tiny", device="cuda"))


def test_a_missing_default_model_is_left_to_the_workers(tmp_path: Path):
    check_start(settings(models=tmp_path, default_model="tiny", device="cuda"))


@pytest.mark.parametrize("name", ["token_file", "admin_token_file"])
def test_files_that_cannot_be_read_are_named_before_a_worker_starts(tmp_path: Path, name: str):
    with pytest.raises(ConfigurationError, match="none: the tokens cannot be read"):
        check_start(settings(**{name: str(tmp_path / "none")}))


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="none"):
        check_start(settings(tls_cert=str(tmp_path / "none"), tls_key=str(tmp_path / "none")))


def test_an_unknown_exporter_of_traces_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "pigeon")
    with pytest.raises(ConfigurationError, match="pigeon"):
        check_start(settings())
