"""The requests that the benchmarks send: one digit as JSON, as a tensor of bytes, over gRPC and as a PNG, and many."""

import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks import serving_client as client
from benchmarks.servers import MODEL, ROOT, Ports
from serving.grpc.stubs import inference_pb2 as pb

Images = npt.NDArray[np.uint8]

# Ports, requests, connections -> seconds of each answer.
Send = Callable[[Ports, int, int], Coroutine[Any, Any, list[float]]]
# The body over HTTP, the message over gRPC.
Answer = bytes | pb.ModelInferResponse

LENGTH = "inference-header-content-length"
LARGE = 256


@dataclass(frozen=True)
class Case:
    """One kind of request.

    Attributes:
        send: sends it again and again.
        ask: sends it once.
        request: as it travels, for HTTP.
        images: in one request, the first ones of the test set; those of many are sent less often, over fewer
            connections.
        model: that answers.
    """

    send: Send
    ask: Callable[[Ports], Coroutine[Any, Any, Answer]]
    request: bytes = b""
    images: int = 1
    model: str = MODEL


def over_http(path: str, body: bytes, images: int = 1, **headers: str) -> Case:
    """Return a POST."""
    request = client.http_request(path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    return Case(
        lambda ports, count, n: client.send_http(ports.http, request, count, n),
        lambda ports: client.ask_http(ports.http, request),
        request,
        images,
    )


def multipart(path: str, field: str, data: bytes, content_type: str) -> Case:
    """Return a POST of a form with one file."""
    head = f'--x\r\nContent-Disposition: form-data; name="{field}"; filename="digit"\r\nContent-Type: {content_type}'
    body = head.encode() + b"\r\n\r\n" + data + b"\r\n--x--\r\n"
    return over_http(path, body, content_type="multipart/form-data; boundary=x")


def infer(model: str = MODEL) -> str:
    """Return the path of inference."""
    return f"/v2/models/{model}/infer"


def test_images() -> Images:
    """Return MNIST's test set, as `make test` fetched it."""
    raw = np.frombuffer((ROOT / "data/t10k-images-idx3-ubyte").read_bytes(), np.uint8, offset=16)
    return raw.reshape(-1, 28, 28)


def png_of(image: Images) -> bytes:
    """Return an image as a PNG."""
    return cv2.imencode(".png", image)[1].tobytes()


def _tensor(count: int, **fields: object) -> dict[str, object]:
    return {"name": "images", "datatype": "UINT8", "shape": [count, 28, 28]} | fields


def json_v2(images: Images) -> Case:
    """Return the Open Inference Protocol's JSON."""
    body = json.dumps({"inputs": [_tensor(len(images), data=images.ravel().tolist())]}).encode()
    return over_http(infer(), body, len(images), content_type="application/json")


def binary_v2(images: Images, model: str = MODEL) -> Case:
    """Return the protocol's JSON with the tensor behind it, both ways."""
    tensor = _tensor(len(images), parameters={"binary_data_size": images.nbytes})
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"content_type": "application/octet-stream", LENGTH: str(len(head))}
    return replace(over_http(infer(model), head + images.tobytes(), len(images), **headers), model=model)


def grpc_v2(images: Images) -> Case:
    """Return the protocol's call."""
    call = pb.ModelInferRequest(model_name=MODEL, raw_input_contents=[images.tobytes()])
    call.inputs.add(name="images", datatype="UINT8", shape=images.shape)
    return Case(
        lambda ports, count, n: client.send_grpc(ports.grpc, call, count, n),
        lambda ports: client.ask_grpc(ports.grpc, call),
        images=len(images),
    )


def our_cases(images: Images) -> dict[str, Case]:
    """Return the requests that the service and the bare server take, by kind."""
    one = images[:1]
    return {
        "JSON": json_v2(one),
        "binary": binary_v2(one),
        "gRPC": grpc_v2(one),
        "PNG": over_http("/predict", png_of(one[0]), content_type="image/png"),
        f"{LARGE} images": binary_v2(images[:LARGE]),
    }


def write(text: str, path: Path) -> None:
    """Print a text and keep it in a file."""
    print(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
