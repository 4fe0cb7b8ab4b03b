"""One table: what an error means as an HTTP and as a gRPC status.

Must not know: requests, responses, transports.
"""

from serving import errors

# From the special to the general: the first type that fits decides.
_TABLE: tuple[tuple[type[Exception], int, str], ...] = (
    (errors.UnreadablePicture, 422, "INVALID_ARGUMENT"),
    (errors.UnsupportedMediaType, 415, "INVALID_ARGUMENT"),
    (errors.InvalidInput, 400, "INVALID_ARGUMENT"),
    (errors.TooLarge, 413, "RESOURCE_EXHAUSTED"),
    (errors.ModelNotFound, 404, "NOT_FOUND"),
    (errors.Unsupported, 501, "UNIMPLEMENTED"),
    (errors.Unauthorized, 401, "UNAUTHENTICATED"),
    (errors.NotReady, 503, "UNAVAILABLE"),
    (errors.QueueFull, 429, "RESOURCE_EXHAUSTED"),
    (errors.DeadlineExceeded, 504, "DEADLINE_EXCEEDED"),
    (errors.ModelRejected, 422, "FAILED_PRECONDITION"),
)


def http_status(error: Exception) -> int:
    """Return the HTTP status of an error, 500 for one that is not in the table."""
    return next((status for kind, status, _ in _TABLE if isinstance(error, kind)), 500)


def grpc_status(error: Exception) -> str:
    """Return the name of the gRPC status code of an error, INTERNAL for one that is not in the table."""
    return next((code for kind, _, code in _TABLE if isinstance(error, kind)), "INTERNAL")
