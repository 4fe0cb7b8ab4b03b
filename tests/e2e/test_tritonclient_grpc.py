"""Triton's own gRPC clients, as they are, against the real server."""

import queue
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as client_of_triton
import tritonclient.grpc.aio as aio_client_of_triton
from tritonclient.utils import InferenceServerException

from tests.conftest import Digits
from tests.e2e.conftest import Start
from tests.e2e.server import Server
from tests.serving.tiny_model import expected_logits
from tests.serving.v2_worker import picture

MODEL, TOKEN = "mnist-cnn", "secret"
FLOATS = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64}


@pytest.fixture(scope="module")
def server(start: Start) -> Server:
    return start(MNIST_ADMIN_TOKEN=TOKEN).wait_ready()


@pytest.fixture
def client(server: Server) -> Any:
    with client_of_triton.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as made:
        yield made


def tensor(values: np.ndarray, datatype: str = "UINT8") -> client_of_triton.InferInput:
    made = client_of_triton.InferInput("images", list(values.shape), datatype)
    made.set_data_from_numpy(values)
    return made


def check(answer: Any, images: np.ndarray) -> None:
    assert np.allclose(answer.as_numpy("logits"), expected_logits(images), atol=1e-4)
    assert np.allclose(answer.as_numpy("probabilities").sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("count", [1, 5, 300])
def test_pixels_are_read(client: Any, test_digits: Digits, count: int):
    check(client.infer(MODEL, [tensor(test_digits[0][:count])]), test_digits[0][:count])


@pytest.mark.parametrize("datatype", FLOATS)
def test_intensities_are_read(client: Any, test_digits: Digits, datatype: str):
    images = test_digits[0][:4]
    check(client.infer(MODEL, [tensor((images / 255).astype(FLOATS[datatype]), datatype)]), images)


def test_pictures_are_read(client: Any, test_digits: Digits):
    pictures = np.array([picture(image) for image in test_digits[0][:3]], object)
    assert client.infer(MODEL, [tensor(pictures, "BYTES")]).as_numpy("logits").shape == (3, 10)
    with pytest.raises(InferenceServerException, match="element 1: "):
        client.infer(MODEL, [tensor(np.array([pictures[0], b"no picture"], object), "BYTES")])


def test_case_e13_two_thousand_digits_as_floats_are_read(client: Any, test_digits: Digits):
    images = test_digits[0][:2000]
    check(client.infer(MODEL, [tensor((images / 255).astype(np.float32), "FP32")]), images)


def test_requested_outputs_classes_and_id(client: Any, test_digits: Digits):
    images = test_digits[0][:6]
    output = client_of_triton.InferRequestedOutput("probabilities", class_count=2)
    answer = client.infer(MODEL, [tensor(images)], outputs=[output], request_id="mine", model_version="1")
    assert answer.get_response().id == "mine"
    assert answer.as_numpy("logits") is None
    classes = answer.as_numpy("probabilities").astype(str)
    best = expected_logits(images).argmax(axis=1)
    assert [int(row[0].split(":")[1]) for row in classes] == best.tolist()


def test_an_asynchronous_request_is_answered(client: Any, test_digits: Digits):
    answers: queue.Queue[Any] = queue.Queue()
    client.async_infer(MODEL, [tensor(test_digits[0][:3])], lambda result, error: answers.put((result, error)))
    result, error = answers.get(timeout=10)
    assert error is None
    check(result, test_digits[0][:3])


def test_the_server_describes_itself(client: Any, test_digits: Digits):
    client.infer(MODEL, [tensor(test_digits[0][:1])])
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert "binary_tensor_data" in client.get_server_metadata().extensions
    assert client.get_model_metadata(MODEL).platform == "onnxruntime_onnx"
    assert client.get_model_config(MODEL).config.max_batch_size == 64
    assert {each.name for each in client.get_model_repository_index().models} == {MODEL, "other"}
    assert client.get_inference_statistics(MODEL).model_stats[0].inference_count > 0
    assert len(client.get_inference_statistics(as_json=True)["model_stats"]) == 2


@pytest.mark.parametrize(
    ("values", "datatype"),
    [(np.zeros((1, 28, 28), np.int32), "INT32"), (np.full((1, 28, 28), 255, np.float32), "FP32")],
)
def test_errors_come_with_their_text(client: Any, values: np.ndarray, datatype: str):
    with pytest.raises(InferenceServerException, match="images") as caught:
        client.infer(MODEL, [tensor(values, datatype)])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_what_is_not_there_or_not_offered_has_its_status(client: Any):
    for call, status in (
        (lambda: client.get_model_metadata("none"), "NOT_FOUND"),
        (client.get_log_settings, "UNIMPLEMENTED"),
        (client.get_system_shared_memory_status, "UNIMPLEMENTED"),
        (lambda: client.unload_model("other"), "UNAUTHENTICATED"),
    ):
        with pytest.raises(InferenceServerException) as caught:
            call()
        assert caught.value.status() == f"StatusCode.{status}"


def test_models_are_unloaded_and_loaded_with_the_token(client: Any):
    token = {"authorization": f"Bearer {TOKEN}"}
    client.unload_model("other", headers=token)
    assert not client.is_model_ready("other")
    client.load_model("other", headers=token)
    assert client.is_model_ready("other")


async def test_the_asyncio_client_works(server: Server, test_digits: Digits):
    images = test_digits[0][:20]
    async with aio_client_of_triton.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client:
        assert await client.is_server_ready()
        check(await client.infer(MODEL, [tensor(images)]), images)
        assert (await client.get_model_metadata(MODEL)).name == MODEL
        with pytest.raises(InferenceServerException, match="no model"):
            await client.infer("none", [tensor(images)])
