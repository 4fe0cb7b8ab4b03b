"""Triton's own HTTP clients, as they are, against the real server."""

import base64
from typing import Any

import numpy as np
import pytest
import tritonclient.http as client_of_triton
import tritonclient.http.aio as aio_client_of_triton
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


@pytest.fixture(params=["bare", "bentoml"])
def client(server: Server, request: pytest.FixtureRequest) -> Any:
    port = server.v2_port if request.param == "bare" else server.port
    with client_of_triton.InferenceServerClient(f"127.0.0.1:{port}") as made:
        yield made


def tensor(values: np.ndarray, datatype: str = "UINT8", binary: bool = True) -> client_of_triton.InferInput:
    made = client_of_triton.InferInput("images", list(values.shape), datatype)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def check(answer: Any, images: np.ndarray) -> None:
    assert np.allclose(answer.as_numpy("logits"), expected_logits(images), atol=1e-4)
    assert np.allclose(answer.as_numpy("probabilities").sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("count", [1, 5, 300])
def test_pixels_are_read(client: Any, test_digits: Digits, binary: bool, count: int):
    images = test_digits[0][:count]
    check(client.infer(MODEL, [tensor(images, binary=binary)]), images)


@pytest.mark.parametrize("datatype", FLOATS)
def test_intensities_are_read(client: Any, test_digits: Digits, datatype: str):
    images = test_digits[0][:4]
    intensities = (images / 255).astype(FLOATS[datatype])
    check(client.infer(MODEL, [tensor(intensities, datatype)]), images)
    check(client.infer(MODEL, [tensor(intensities[:, None], datatype)]), images)


def test_pictures_are_read_raw_and_as_base64(client: Any, test_digits: Digits):
    pictures = [picture(image) for image in test_digits[0][:3]]
    raw = client.infer(MODEL, [tensor(np.array(pictures, object), "BYTES")])
    texts = np.array([base64.b64encode(each) for each in pictures], object)
    text = client.infer(MODEL, [tensor(texts, "BYTES", binary=False)])
    assert raw.as_numpy("logits").shape == (3, 10)
    assert np.array_equal(raw.as_numpy("logits"), text.as_numpy("logits"))


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_bodies_are_compressed_both_ways(client: Any, test_digits: Digits, algorithm: str):
    images = test_digits[0][:100]
    options = {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
    for binary in (True, False):
        check(client.infer(MODEL, [tensor(images, binary=binary)], **options), images)


@pytest.mark.parametrize("binary", [True, False])
def test_requested_outputs_classes_and_id(client: Any, test_digits: Digits, binary: bool):
    images = test_digits[0][:6]
    output = client_of_triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=2)
    answer = client.infer(MODEL, [tensor(images)], outputs=[output], request_id="mine", model_version="1")
    assert answer.get_response()["id"] == "mine"
    assert answer.as_numpy("logits") is None
    classes = answer.as_numpy("probabilities").astype(str)
    best = expected_logits(images).argmax(axis=1)
    assert [int(row[0].split(":")[1]) for row in classes] == best.tolist()


def test_an_asynchronous_request_is_answered(client: Any, test_digits: Digits):
    handles = [client.async_infer(MODEL, [tensor(test_digits[0][:3])]) for _ in range(4)]
    for handle in handles:
        check(handle.get_result(), test_digits[0][:3])


def test_the_server_describes_itself(client: Any, test_digits: Digits):
    client.infer(MODEL, [tensor(test_digits[0][:1])])
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert not client.is_model_ready("none")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata(MODEL)["platform"] == "onnxruntime_onnx"
    assert client.get_model_config(MODEL)["max_batch_size"] == 64
    assert {each["name"] for each in client.get_model_repository_index()} == {MODEL, "other"}
    statistics = client.get_inference_statistics(MODEL)["model_stats"]
    assert statistics[0]["inference_count"] > 0
    assert len(client.get_inference_statistics()["model_stats"]) == 2


@pytest.mark.parametrize(
    ("made", "status"),
    [
        (tensor(np.zeros((1, 28, 28), np.int32), "INT32"), "400"),
        (tensor(np.full((1, 28, 28), 255, np.float32), "FP32"), "400"),
        (tensor(np.array([b"no picture"], object), "BYTES"), "400"),
    ],
)
def test_errors_come_with_their_text(client: Any, made: Any, status: str):
    with pytest.raises(InferenceServerException, match=r"images|element 0") as caught:
        client.infer(MODEL, [made])
    assert caught.value.status() == status


def test_an_unknown_model_is_404(client: Any):
    with pytest.raises(InferenceServerException, match="no model 'none'") as caught:
        client.infer("none", [tensor(np.zeros((1, 28, 28), np.uint8))])
    assert caught.value.status() == "404"


def test_models_are_unloaded_and_loaded_with_the_token(client: Any):
    token = {"Authorization": f"Bearer {TOKEN}"}
    with pytest.raises(InferenceServerException, match="token"):
        client.unload_model("other")
    client.unload_model("other", headers=token)
    assert not client.is_model_ready("other")
    client.load_model("other", headers=token)
    assert client.is_model_ready("other")


@pytest.mark.parametrize("binary", [True, False])
async def test_the_asyncio_client_works(server: Server, test_digits: Digits, binary: bool):
    images = test_digits[0][:20]
    async with aio_client_of_triton.InferenceServerClient(f"127.0.0.1:{server.v2_port}") as client:
        assert await client.is_server_ready()
        check(await client.infer(MODEL, [tensor(images, binary=binary)]), images)
        options = {"request_compression_algorithm": "gzip", "response_compression_algorithm": "gzip"}
        check(await client.infer(MODEL, [tensor(images, binary=binary)], **options), images)
        assert (await client.get_model_metadata(MODEL))["name"] == MODEL
        with pytest.raises(InferenceServerException, match="no model"):
            await client.infer("none", [tensor(images)])
