"""The certificate of the service, read again when its files change.

Must not know: listeners.
"""

import logging
import ssl
from pathlib import Path

from serving.changes import state_of
from serving.errors import ConfigurationError

logger = logging.getLogger(__name__)


class Certificate:
    """A certificate chain with its key.

    Args:
        chain: PEM file, the server's certificate first.
        key: PEM file, not encrypted.

    Attributes:
        context: for servers that go on with it; each handshake takes the certificate that is then in force.
        pem: key and chain that are in force.

    Raises:
        ConfigurationError: the files cannot be read or do not belong together.
    """

    def __init__(self, chain: str, key: str):
        self._chain, self._key = Path(chain), Path(key)
        self._states = self._look()
        self._latest, self.pem = self._load()
        self.context = _server_context()
        self.context.load_cert_chain(self._chain, self._key)
        self.context.sni_callback = self._choose

    def _look(self) -> tuple[object, object]:
        return state_of(self._chain), state_of(self._key)

    def _load(self) -> tuple[ssl.SSLContext, tuple[bytes, bytes]]:
        context = _server_context()
        try:
            # A password would be asked for on the terminal.
            context.load_cert_chain(self._chain, self._key, password=lambda: b"")
            return context, (self._key.read_bytes(), self._chain.read_bytes())
        except (OSError, ssl.SSLError, ValueError) as error:
            raise ConfigurationError(
                f"MNIST_TLS_CERT={self._chain}, MNIST_TLS_KEY={self._key}: expected a certificate chain and its key as "
                f"PEM: {error}"
            ) from error

    def _choose(self, connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        # Called at every handshake, also where the client names no server.
        connection.context = self._latest

    def refresh(self) -> None:
        """Read the files again if they have changed; where that fails, what was read before stays."""
        states = self._look()
        if states == self._states:
            return
        self._states = states
        try:
            self._latest, self.pem = self._load()
        except ConfigurationError as error:
            logger.error("%s; the certificate that was read before stays", error)
            return
        logger.info("the certificate was read again from %s", self._chain)


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    # Renegotiation costs a server far more than its caller.
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context
