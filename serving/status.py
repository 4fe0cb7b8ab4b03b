"""One table: what an error means as an HTTP and as a gRPC status, and its name in the metrics.

Must not know: requests, responses, transports.
"""

from serving import errors

# From the special to the general: the first type that fits decides.
_TABLE: tuple[tuple[type[Exception], int, str, str], ...] = (
    (errors.UnreadablePicture, 422, "INVALID_ARGUMENT", "unreadable"),
    (errors.UnsupportedMediaType, 415, "INVALID_ARGUMENT", "media_type"),
    (errors.InvalidInput, 400, "INVALID_ARGUMENT", "invalid"),
    (errors.TooLarge, 413, "RESOURCE_EXHAUSTED", "too_large"),
    (errors.ModelNotFound, 404, "NOT_FOUND", "model_not_found"),
    (errors.Unsupported, 501, "UNIMPLEMENTED", "unsupported"),
    (errors.Unauthorized, 401, "UNAUTHENTICATED", "unauthorized"),
    (errors.NotReady, 503, "UNAVAILABLE", "not_ready"),
    (errors.QueueFull, 429, "RESOURCE_EXHAUSTED", "queue_full"),
    (errors.TooManyRequests, 429, "RESOURCE_EXHAUSTED", "rate_limit"),
    (errors.DeadlineExceeded, 504, "DEADLINE_EXCEEDED", "deadline"),
    (errors.ModelRejected, 422, "FAILED_PRECONDITION", "model_rejected"),
)

INTERNAL = "internal"

REJECTIONS = (
    *(name for *_, name in _TABLE),
    INTERNAL,
    "answer_timeout",
    "body_timeout",
    "calls",
    "connections",
    "handshake_timeout",
    "head_timeout",
    "head_too_large",
    "malformed",
)
"""Every reason for which requests are refused, by its name in the metrics."""


def http_status(error: Exception) -> int:
    """Return the HTTP status of an error, 500 for one that is not in the table."""
    return next((status for kind, status, _, _ in _TABLE if isinstance(error, kind)), 500)


def grpc_status(error: Exception) -> str:
    """Return the name of the gRPC status code of an error, INTERNAL for one that is not in the table."""
    return next((code for kind, _, code, _ in _TABLE if isinstance(error, kind)), "INTERNAL")


def reason(error: Exception) -> str:
    """Return the name of an error in the metrics, "internal" for one that is not in the table."""
    return next((name for kind, _, _, name in _TABLE if isinstance(error, kind)), INTERNAL)
