import asyncio
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from serving.errors import ConfigurationError
from serving.tls import Certificate
from tests.certificates import write_certificate


async def name_shown(certificate: Certificate) -> str:
    """Return the name in the certificate that a client is shown."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=certificate.context)
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    port = server.sockets[0].getsockname()[1]
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    server.close()
    return x509.load_der_x509_certificate(shown).subject.rfc4514_string()


async def test_a_new_certificate_is_shown_without_a_restart(tmp_path: Path):
    certificate = Certificate(*map(str, write_certificate(tmp_path, "one")))
    assert await name_shown(certificate) == "CN=one"
    certificate.refresh()
    write_certificate(tmp_path, "two")
    assert await name_shown(certificate) == "CN=one"
    certificate.refresh()
    assert await name_shown(certificate) == "CN=two"
    assert certificate.pem == ((tmp_path / "tls.key").read_bytes(), (tmp_path / "tls.crt").read_bytes())


async def test_half_an_exchange_changes_nothing_until_it_is_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    chain, key = write_certificate(tmp_path, "one")
    certificate = Certificate(str(chain), str(key))
    (tmp_path / "new").mkdir()
    new_chain, new_key = write_certificate(tmp_path / "new", "two")
    new_chain.rename(chain)
    certificate.refresh()
    assert await name_shown(certificate) == "CN=one"
    assert "the certificate that was read before stays" in caplog.text
    new_key.rename(key)
    certificate.refresh()
    assert await name_shown(certificate) == "CN=two"


@pytest.mark.parametrize("spoil", ["chain", "key", "missing"])
def test_files_that_cannot_be_used_stop_the_start(tmp_path: Path, spoil: str):
    chain, key = write_certificate(tmp_path, "one")
    if spoil == "missing":
        key.unlink()
    else:
        {"chain": chain, "key": key}[spoil].write_text("no PEM")
    with pytest.raises(ConfigurationError, match=r"MNIST_TLS_CERT=.*tls\.crt, MNIST_TLS_KEY=.*expected a certificate"):
        Certificate(str(chain), str(key))


def test_old_versions_and_renegotiation_are_not_spoken(tmp_path: Path):
    context = Certificate(*map(str, write_certificate(tmp_path, "one"))).context
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
