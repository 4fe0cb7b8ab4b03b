import inspect

import pytest

from serving import errors
from serving.http.errors import BodyTimeout, CutOff
from serving.status import grpc_status, http_status, reason

# By the Open Inference Protocol's table of errors.
EXPECTED = {
    "InvalidInput": (400, "INVALID_ARGUMENT"),
    "UnreadablePicture": (422, "INVALID_ARGUMENT"),
    "UnsupportedMediaType": (415, "INVALID_ARGUMENT"),
    "TooLarge": (413, "RESOURCE_EXHAUSTED"),
    "ModelNotFound": (404, "NOT_FOUND"),
    "Unsupported": (501, "UNIMPLEMENTED"),
    "Unauthorized": (401, "UNAUTHENTICATED"),
    "NotReady": (503, "UNAVAILABLE"),
    "DeadlineExceeded": (504, "DEADLINE_EXCEEDED"),
    "ModelRejected": (422, "FAILED_PRECONDITION"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_each_error_has_its_two_codes(name: str):
    error = getattr(errors, name)(*["text"] * (3 if name == "ModelRejected" else 1))
    assert (http_status(error), grpc_status(error)) == EXPECTED[name]


def test_a_full_queue_is_429():
    full = errors.QueueFull("full", 1.0)
    assert (http_status(full), grpc_status(full), reason(full)) == (429, "RESOURCE_EXHAUSTED", "queue_full")


def test_too_many_requests_are_429():
    error = errors.TooManyRequests("too many", 1.0)
    assert (http_status(error), grpc_status(error), reason(error)) == (429, "RESOURCE_EXHAUSTED", "rate_limit")


def test_what_is_not_in_the_table_is_an_internal_error():
    for error in (ValueError("x"), errors.ServingError("x")):
        assert (http_status(error), grpc_status(error), reason(error)) == (500, "INTERNAL", "internal")


def test_each_error_of_a_caller_has_a_reason_of_its_own():
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    others = (errors.ServingError, errors.TryLater, errors.ConfigurationError)
    made = [kind.__new__(kind) for kind in kinds if kind not in others]
    reasons = [reason(error) for error in made]
    assert len(set(reasons)) == len(reasons)
    assert "internal" not in reasons


def test_a_body_that_is_cut_off_counts_as_what_it_is():
    assert str(CutOff(BodyTimeout("slow"))) == "slow"
