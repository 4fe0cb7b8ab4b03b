"""The error types of the service; the text of each is written for the caller and safe to send.

Must not know: transports. `serving.status` maps each type to an HTTP and a gRPC status.
"""

import reprlib

# Of what a caller has sent, in an error: elements of a list, characters of a text.
MOST_SHOWN, LONGEST_SHOWN = 8, 80

_shown = reprlib.Repr()
_shown.maxlist, _shown.maxstring = MOST_SHOWN, LONGEST_SHOWN


def shown(value: object) -> str:
    """Return what a caller has sent as an error shows it: cut, for it may be of 33 MB, and gRPC's clients take 8 KB."""
    return _shown.repr(value)


class ServingError(Exception):
    """The base of every error whose text may be shown to the caller."""


def forget_frames(error: ServingError) -> ServingError:
    """Return an error that is kept, without the frames that it came through, and so without the bodies in them.

    A frame that refers to the error, directly or by its caller, would hold them until the next garbage collection.
    """
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


class InvalidInput(ServingError):
    """The request or its tensors are malformed: says what was found and what was expected."""


class UnreadablePicture(InvalidInput):
    """The bytes are no picture of an accepted format, or a broken one."""


class UnsupportedMediaType(InvalidInput):
    """The body is of a kind that this route does not read."""


class TooLarge(ServingError):
    """A body, a picture or a batch is over a configured limit."""


class ModelNotFound(ServingError):
    """No such model, or no such version of it."""


class Unsupported(ServingError):
    """The protocol defines it, this service does not offer it."""


class Unauthorized(ServingError):
    """The call needs a token that was not given or is wrong."""


class NotReady(ServingError):
    """The model or the server is starting, draining or failed."""


class TryLater(ServingError):
    """There is too much to do now.

    Args:
        text: what to tell the caller.
        retry_after_s: seconds after which a new try makes sense, > 0.
    """

    def __init__(self, text: str, retry_after_s: float):
        super().__init__(text)
        self.retry_after_s = retry_after_s


class QueueFull(TryLater):
    """More is waiting than there is room for."""


class TooManyRequests(TryLater):
    """One caller has asked too often."""


class DeadlineExceeded(ServingError):
    """The answer was not ready before the caller's deadline."""


class ModelRejected(ServingError):
    """A model failed a check and is not served.

    Args:
        check: the name of the check.
        found: what was found, with its figure.
        expected: what the check demands, with its bound.
    """

    def __init__(self, check: str, found: str, expected: str):
        super().__init__(f"{check}: found {found}, expected {expected}")
        self.check, self.found, self.expected = check, found, expected


class ConfigurationError(ServingError):
    """A setting has a value that cannot be used: names the setting, the value and what is expected."""
