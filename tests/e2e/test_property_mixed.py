"""Many requests of every size at once, over both protocols: each row is compared with its own answer."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator

import grpc
import httpx
import numpy as np
import pytest

from serving.grpc.stubs import inference_pb2 as pb
from tests.e2e.conftest import Start
from tests.e2e.server import Server
from tests.serving.tiny_model import expected_logits

REQUESTS, LARGEST = 10_000, 300
CLIENTS = 8  # of each protocol

IMAGES = np.random.default_rng(0).integers(0, 256, (5000, 28, 28), np.uint8)
LOGITS = expected_logits(IMAGES)

Send = Callable[[np.ndarray, str], Awaitable[np.ndarray]]


@pytest.fixture(scope="module")
def server(start: Start) -> Server:
    return start(MNIST_QUEUE_SIZE=str(2 * CLIENTS * LARGEST)).wait_ready()


def batches(seed: int, count: int) -> Iterator[np.ndarray]:
    """Yield the places of the images of each request: 1 to LARGEST of them, small requests more often."""
    random = np.random.default_rng(seed)
    for size in np.exp(random.uniform(0, math.log(LARGEST + 1), count)).astype(int):
        yield random.integers(0, len(IMAGES), size)


async def send_all(send: Send, seed: int, count: int) -> tuple[int, list[str]]:
    """Send requests one after the other; return how many rows were right, and which requests were wrong."""
    rows, wrong = 0, []
    for number, places in enumerate(batches(seed, count)):
        name = f"{seed}-{number}"
        logits = await send(IMAGES[places], name)
        if logits.shape == (len(places), 10) and np.allclose(logits, LOGITS[places], atol=1e-3):
            rows += len(places)
        else:
            wrong.append(f"{name}: {logits.shape} for {len(places)} images")
    return rows, wrong


def over_http(client: httpx.AsyncClient, url: str) -> Send:
    async def send(images: np.ndarray, name: str) -> np.ndarray:
        parameters = {"binary_data_size": images.size}
        tensor = {"name": "images", "datatype": "UINT8", "shape": images.shape, "parameters": parameters}
        wanted = [{"name": "logits", "parameters": {"binary_data": True}}]
        head = httpx.Request("POST", url, json={"id": name, "inputs": [tensor], "outputs": wanted}).content
        headers = {"inference-header-content-length": str(len(head))}
        answer = await client.post(url, content=head + images.tobytes(), headers=headers)
        assert answer.status_code == 200, answer.text
        length = int(answer.headers["inference-header-content-length"])
        assert f'"id":"{name}"'.encode() in answer.content[:length]
        return np.frombuffer(answer.content[length:], "<f4").reshape(-1, 10)

    return send


def over_grpc(channel: grpc.aio.Channel) -> Send:
    infer = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelInferResponse.FromString,
    )

    async def send(images: np.ndarray, name: str) -> np.ndarray:
        tensor = pb.ModelInferRequest.InferInputTensor(name="images", datatype="UINT8", shape=images.shape)
        wanted = pb.ModelInferRequest.InferRequestedOutputTensor(name="logits")
        answer = await infer(
            pb.ModelInferRequest(
                model_name="mnist-cnn",
                id=name,
                inputs=[tensor],
                outputs=[wanted],
                raw_input_contents=[images.tobytes()],
            )
        )
        assert answer.id == name
        return np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(-1, 10)

    return send


@pytest.mark.slow
async def test_case_e16_every_row_of_ten_thousand_mixed_requests_gets_its_own_answer(server: Server):
    url = f"{server.v2_url}/v2/models/mnist-cnn/infer"
    each = REQUESTS // (2 * CLIENTS)
    async with (
        httpx.AsyncClient(timeout=60) as client,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        sends = [over_http(client, url), over_grpc(channel)] * CLIENTS
        results = await asyncio.gather(*(send_all(send, seed, each) for seed, send in enumerate(sends)))
    assert [text for _, wrong in results for text in wrong] == []
    expected = sum(len(places) for seed in range(2 * CLIENTS) for places in batches(seed, each))
    assert sum(rows for rows, _ in results) == expected
    assert server.sample("mnist_batch_images_sum") == expected
