"""Who may change what is served.

Must not know: how the token travels.
"""

import hmac

from serving.errors import Unauthorized


class Admission:
    """Compares what a caller shows with the server's token.

    Args:
        token: the server's; empty, nobody may, and the calls are not offered at all.
    """

    def __init__(self, token: str):
        self.offered = bool(token)
        self._expected = f"Bearer {token}".encode()

    def check(self, authorization: str) -> None:
        """Let the caller pass.

        Args:
            authorization: as in the HTTP header of that name.

        Raises:
            Unauthorized: it is not `Bearer` and the token.
        """
        if not self.offered or not hmac.compare_digest(authorization.encode(), self._expected):
            raise Unauthorized("this call needs the server's token: Authorization: Bearer TOKEN")
