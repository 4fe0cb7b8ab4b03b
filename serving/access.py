"""Who may ask for answers, and who may change what is served.

Must not know: how a token travels.
"""

import hashlib
import hmac
import logging
import re
from pathlib import Path

from pydantic import SecretStr

from serving.changes import FileState, state_of
from serving.errors import ConfigurationError, Unauthorized
from serving.rate_limit import RateLimit
from serving.settings import Settings

logger = logging.getLogger(__name__)

# Printable ASCII; clients do not agree on how to send anything else, so that it would match nothing that arrives.
SENDABLE = re.compile(r"[ -~]+")


class Tokens:
    """Bearer tokens of one kind, from a setting or a file with one a line; several at a time let them be exchanged.

    Args:
        setting: that names the token.
        token: the one token; empty for none.
        path: of the file; empty for none.

    Raises:
        ConfigurationError: the file cannot be read or holds no token.
    """

    def __init__(self, setting: str, token: SecretStr, path: str):
        self._path = Path(path) if path else None
        self._state: FileState | None = None
        given = token.get_secret_value()
        if given and not SENDABLE.fullmatch(given):
            raise ConfigurationError(f"{setting}: this token cannot be sent; expected printable ASCII")
        self._digests = [_digest(given)] if given else []
        if self._path:
            self._state = state_of(self._path)
            self._digests = self._read(self._path)

    @property
    def given(self) -> bool:
        """Whether there is a token at all."""
        return bool(self._digests)

    def _read(self, path: Path) -> list[bytes]:
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path}: the tokens cannot be read: {error}") from error
        tokens = [line.strip() for line in lines if line.strip()]
        if not tokens:
            raise ConfigurationError(f"{path}: there is no token in it; expected one a line")
        if wrong := next((number for number, token in enumerate(tokens, 1) if not SENDABLE.fullmatch(token)), None):
            raise ConfigurationError(f"{path}: token {wrong} cannot be sent; expected printable ASCII")
        if any(token.startswith("#") for token in tokens):
            raise ConfigurationError(f"{path}: a line begins with #; expected tokens alone, there are no comments")
        return [_digest(token) for token in tokens]

    def refresh(self) -> None:
        """Read the file again if it has changed; what was read before stays where that fails."""
        if self._path is None or (state := state_of(self._path)) == self._state:
            return
        self._state = state
        try:
            self._digests = self._read(self._path)
        except ConfigurationError as error:
            logger.error("%s; the tokens that were read before stay", error)
            return
        logger.info("%s: %d tokens are in force", self._path, len(self._digests))

    def match(self, token: str) -> bool:
        """Return whether a token is one of these, in a time that says nothing of how much of it is right."""
        digest = _digest(token)
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0


def _digest(token: str) -> bytes:
    # Of one length whatever the token's, so that comparing does not tell it.
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


class Access:
    """Lets callers pass, or not.

    Args:
        settings: the tokens or the files that hold them. Without tokens everybody may ask and nobody may change.

    Raises:
        ConfigurationError: a file of tokens cannot be used.
    """

    def __init__(self, settings: Settings):
        self._callers = Tokens("MNIST_TOKEN", settings.token, settings.token_file)
        self._administrators = Tokens("MNIST_ADMIN_TOKEN", settings.admin_token, settings.admin_token_file)
        self._rate_limit = RateLimit(settings.rate_limit) if settings.rate_limit else None

    @property
    def limited(self) -> bool:
        """Whether there is anything to check before a caller is answered."""
        return self.restricted or self._rate_limit is not None

    @property
    def restricted(self) -> bool:
        """Whether callers need a token."""
        return self._callers.given

    @property
    def administered(self) -> bool:
        """Whether anybody may change what is served."""
        return self._administrators.given

    def refresh(self) -> None:
        """Read what has changed."""
        self._callers.refresh()
        self._administrators.refresh()

    def check_caller(self, authorization: str, address: str) -> None:
        """Let a caller ask for answers; an administrator may, too.

        Args:
            authorization: as in the HTTP header of that name.
            address: the caller's IP address, or nothing where it has none.

        Raises:
            TooManyRequests: this address has asked too often.
            Unauthorized: tokens are needed, and it is not `Bearer` and one of them.
        """
        if self._rate_limit and address:
            self._rate_limit.check(address)
        if not self.restricted:
            return
        token = _bearer(authorization)
        if not self._callers.match(token) | self._administrators.match(token):
            raise Unauthorized("this service needs a token: Authorization: Bearer TOKEN")

    def check_administrator(self, authorization: str) -> None:
        """Let a caller change what is served.

        Raises:
            Unauthorized: nobody may, or it is not `Bearer` and one of the administrators' tokens.
        """
        if not self._administrators.match(_bearer(authorization)):
            raise Unauthorized("this call needs the administrator's token: Authorization: Bearer TOKEN")


def _bearer(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    # RFC 9110, section 11.1: the scheme's case does not matter.
    return token.strip() if scheme.lower() == "bearer" else ""
