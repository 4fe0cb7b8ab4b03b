"""gRPC from start to stop: several workers on one port, a stop under load."""

import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.grpc.stubs import inference_pb2 as pb
from tests.e2e.conftest import Start
from tests.e2e.server import Server, wait_until
from tests.serving.tiny_model import expected_logits

IMAGES = np.random.default_rng(0).integers(0, 256, (100, 28, 28), np.uint8)
LOGITS = expected_logits(IMAGES)


def infer(channel: grpc.Channel, place: int) -> bool:
    """Return whether the answer is that of the image at `place`."""
    call = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelInferResponse.FromString,
    )
    tensor = pb.ModelInferRequest.InferInputTensor(name="images", datatype="UINT8", shape=(1, 28, 28))
    raw = [IMAGES[place].tobytes()]
    request = pb.ModelInferRequest(model_name="mnist-cnn", inputs=[tensor], raw_input_contents=raw)
    answer = call(request, timeout=20)
    return np.allclose(np.frombuffer(answer.raw_output_contents[0], "<f4"), LOGITS[place], atol=1e-3)


def connect_to(address: str) -> grpc.Channel:
    return grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])


def connect(server: Server) -> grpc.Channel:
    return connect_to(f"127.0.0.1:{server.grpc_port}")


@dataclass
class Load:
    """Calls that go on until the server is gone; counts what they got."""

    server: Server
    clients: int = 4
    got: Counter[str] = field(default_factory=Counter)

    def __enter__(self) -> "Load":
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(seed,)) for seed in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        with connect(self.server) as channel:
            while not self._stop.is_set():
                try:
                    self.got["right" if infer(channel, int(random.integers(100))) else "wrong"] += 1
                except grpc.RpcError as error:
                    self.got[error.code().name] += 1
                    time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_case_d11_a_stop_under_load_loses_no_call_that_was_accepted(start: Start, number: int):
    server = start().wait_ready()
    with connect(server) as channel, Load(server) as load:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        wait_until(lambda: load.got["right"] > 50)
        server.signal(number)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert server.wait() == 0
    # Once the port is closed a call is refused; whoever calls may try another instance.
    assert set(load.got) <= {"right", "UNAVAILABLE"}, load.got


def test_workers_share_the_port_and_their_counts(start: Start):
    server = start(MNIST_WORKERS="2").wait_ready(workers=2)
    for place in range(40):
        with connect(server) as channel:
            assert infer(channel, place)
    counted = 'mnist_requests_total{method="",model="mnist-cnn",protocol="grpc",route="ModelInfer",status="OK"}'
    assert server.sample(counted) == 40
