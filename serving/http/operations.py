"""The operations of the HTTP interface, as `/openapi.json` describes them.

Must not know: how a route works, how the document is made.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Operation:
    """One operation of the interface, and the request that its example makes."""

    method: str
    path: str
    tag: str
    summary: str
    description: str = ""
    query: tuple[tuple[str, str, str], ...] = ()
    """Name, meaning and example value of each parameter; a value of "" is left out of the example."""
    body: Any = None
    media_types: tuple[str, ...] = ()
    """What else the body may be, beside JSON."""
    errors: dict[int, str] = field(default_factory=dict)
    example_path: str | None = None
    takes: str = ""
    """The schema of the body, by its name."""
    gives: str = ""
    """The schema of the answer."""


MODEL = ("model", "name of a model; by default the default model", "")
VERSION = ("version", "version of the model; by default the largest", "")
ERRORS = {
    400: "The request is malformed.",
    401: "No bearer token, or none that is known here.",
    404: "No such model or version.",
    408: "The body came too slowly.",
    413: "The body, a picture or the batch is over a limit.",
    415: "The body is of a kind, or packed in a way, that is not read.",
    422: "The picture cannot be read, or the file of the layers is not what was published.",
    429: "Too much is waiting; try again after Retry-After seconds.",
    501: "Not offered: a part of the protocol, explanations that are switched off, layers that were not published.",
    503: "Not ready, or stopping.",
    504: "Not answered in time.",
}
PICTURE_TYPES = ("application/octet-stream", "image/png", "image/jpeg", "multipart/form-data")


def _errors(*statuses: int) -> dict[int, str]:
    return {status: ERRORS[status] for status in statuses}


def operations(png_base64: str, pixels: list[int], model: str) -> list[Operation]:
    """Return the operations, their examples about one picture.

    Args:
        png_base64: the picture as a PNG file, in base64.
        pixels: the same, 784 integers, 0 = paper, 255 = ink.
        model: a model that is served.
    """
    infer = {"inputs": [{"name": "images", "shape": [1, 28, 28], "datatype": "UINT8", "data": pixels}]}
    return [
        Operation(
            "post",
            "/predict",
            "Pictures",
            "Read the digit in a picture",
            "The body is a picture (PNG, JPEG, GIF, BMP, TIFF, WebP), a form with one or more files, or JSON: "
            '{"images": [base64, ...]} or {"pixels": 28 rows of 28 integers, 0 = paper, 255 = ink}. The content '
            "decides what it is. A picture that cannot be read has an `error` in its place.",
            (MODEL, VERSION, ("include", "`input` adds the 28x28 picture that the network saw", "input")),
            {"images": [png_base64]},
            PICTURE_TYPES,
            errors=_errors(400, 404, 408, 413, 415, 422, 429, 503, 504),
            takes="Pictures",
            gives="Predictions",
        ),
        Operation(
            "get",
            "/explain",
            "Explanation",
            "Describe the layers of a network, with its kernels",
            "Tensors are a shape and base64 of float32, little-endian. 501 where explanations are switched off.",
            (MODEL, VERSION),
            errors=_errors(400, 404, 422, 501, 503),
            gives="Network",
        ),
        Operation(
            "post",
            "/explain",
            "Explanation",
            "Show what a network makes of one picture",
            "The body is as for /predict, with one picture. `layers` gives the values of every layer, `occlusion` the "
            "probabilities with a square of paper on each pixel.",
            (MODEL, VERSION, ("include", "`layers`, `occlusion`, or both with a comma between", "occlusion")),
            {"images": [png_base64]},
            PICTURE_TYPES,
            errors=_errors(400, 404, 408, 413, 415, 422, 429, 501, 503, 504),
            takes="Pictures",
            gives="Explanation",
        ),
        Operation("get", "/models", "Models", "List the models that are served", gives="Models"),
        Operation("get", "/v2", "Open Inference Protocol v2", "Describe the server", gives="ServerMetadata"),
        Operation(
            "get",
            "/v2/models/{model}",
            "Open Inference Protocol v2",
            "Describe a model",
            errors=_errors(404, 503),
            example_path=f"/v2/models/{model}",
            gives="ModelMetadata",
        ),
        Operation(
            "post",
            "/v2/models/{model}/infer",
            "Open Inference Protocol v2",
            "Classify images of 28x28 pixels",
            "UINT8 pixels, 0 = paper, 255 = ink. Normalisation is part of the model. Tensors may also be sent raw, by "
            "the binary tensor data extension, and the same calls are there over gRPC.",
            body=infer,
            errors=_errors(400, 404, 408, 413, 415, 429, 501, 503, 504),
            example_path=f"/v2/models/{model}/infer",
            takes="InferenceRequest",
            gives="InferenceResponse",
        ),
        Operation(
            "post",
            "/v2/repository/index",
            "Open Inference Protocol v2",
            "List every version and its state",
            errors=_errors(400, 408, 413, 415, 429, 504),
            gives="RepositoryIndex",
        ),
        Operation("get", "/livez", "Health", "Say that the process lives", gives="Live"),
        Operation(
            "get", "/readyz", "Health", "Say whether requests should be sent here", errors=_errors(503), gives="Ready"
        ),
    ]
