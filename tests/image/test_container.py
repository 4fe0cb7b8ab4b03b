"""The image as a platform runs it: hardened, with limits, a lost worker, a stop under load."""

import re
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator

import grpc
import httpx
import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput

from serving.grpc.stubs import inference_pb2 as pb
from tests.deploy.tools import ROOT
from tests.e2e.server import LIMIT_S, wait_until
from tests.e2e.test_grpc_lifecycle import connect_to
from tests.image.engine import ENGINE, HARDENED, IMAGE, Container, engine, running

WORKERS = 2


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    with running("service", "-eHOME=/nonexistent", workers=WORKERS) as started:
        yield started


def metrics(container: Container) -> str:
    return httpx.get(container.url("/metrics")).text


def test_a_hardened_container_is_ready_and_predicts(container, seven):
    answer = httpx.post(container.url("/predict"), content=seven)
    print(f"\nready after {container.ready_after_s:.1f} s, {WORKERS} workers")
    assert answer.status_code == 200
    assert answer.json()["predictions"][0]["digit"] == 7


def test_it_predicts_over_grpc(container, test_digits):
    images, labels = test_digits
    tensor = InferInput("images", [10, 28, 28], "UINT8").set_data_from_numpy(images[:10])
    with InferenceServerClient(f"127.0.0.1:{container.grpc}") as client:
        model = client.get_model_repository_index().models[0].name
        answer = client.infer(model, [tensor])
    assert (answer.as_numpy("probabilities").argmax(1) == labels[:10]).mean() >= 0.9


def test_its_metrics_can_be_scraped_and_say_that_it_runs_on_the_cpu(container):
    text = metrics(container)
    assert re.search(r"^mnist_requests_total\{", text, re.MULTILINE)
    assert set(re.findall(r'^mnist_execution_provider\{.*provider="(\w+)".*\} 1', text, re.MULTILINE)) == {
        "CPUExecutionProvider"
    }


def test_its_health_check_passes(container):
    wait_until(container.healthy)


def test_it_has_no_name_no_right_and_no_place_to_write(container):
    status = dict(re.findall(r"^(\w+):\s+(.+)$", container.run("cat", "/proc/1/status"), re.MULTILINE))
    assert status["Uid"].split() == ["12345"] * 4
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"
    assert ":12345:" not in container.run("cat", "/etc/passwd")
    container.run("sh", "-c", "! touch /app/x 2>/dev/null && touch /tmp/x")


def test_a_killed_worker_comes_back(container, seven):
    before = container.workers()
    assert len(before) == WORKERS
    lost = min(before)
    container.run("python3", "-c", f"import os; os.kill({lost}, 9)")
    wait_until(lambda: lost not in (now := container.workers()) and len(now) == WORKERS)
    wait_until(container.ready)
    assert httpx.post(container.url("/predict"), content=seven).status_code == 200


def test_a_stop_under_load_loses_nothing_and_exits_0(container, seven):
    """Clients over HTTP and gRPC see an answer to every request that was accepted."""
    got: Counter[str] = Counter()
    clients = [threading.Thread(target=ask, args=(container, seven, got)) for ask in (ask_http, ask_grpc) * 3]
    for client in clients:
        client.start()
    wait_until(lambda: got["http"] > 100 and got["grpc"] > 100)
    started = time.monotonic()
    engine("stop", "-t", "40", container.name)
    stopped_after_s = time.monotonic() - started
    for client in clients:
        client.join(30)
    print(f"\nstopped in {stopped_after_s:.1f} s; answered over HTTP {got['http']}, over gRPC {got['grpc']}")
    assert set(got) <= {"http", "grpc", "refused"}, got
    assert container.exit_code() == 0


def ask_http(container: Container, picture: bytes, got: Counter[str]) -> None:
    """Ask over one kept connection at a time until no listener accepts one."""
    while True:
        try:
            with httpx.Client(timeout=30) as client:
                answer = None
                while answer is None or answer.headers.get("connection") != "close":
                    answer = client.post(container.url("/predict"), content=picture)
                    got["http" if answer.status_code == 200 else f"status {answer.status_code}"] += 1
        except httpx.ConnectError:
            return
        except httpx.TransportError as error:
            got[repr(error)] += 1


def read_over_grpc(channel: grpc.Channel, picture: bytes) -> int:
    """Return the digit of an encoded picture."""
    call = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelInferResponse.FromString,
    )
    tensor = pb.ModelInferRequest.InferInputTensor(name="images", datatype="BYTES", shape=(1,))
    raw = [struct.pack("<I", len(picture)) + picture]
    answer = call(pb.ModelInferRequest(model_name="mnist-cnn", inputs=[tensor], raw_input_contents=raw), timeout=30)
    return int(np.frombuffer(answer.raw_output_contents[0], "<f4").argmax())


def ask_grpc(container: Container, picture: bytes, got: Counter[str]) -> None:
    """Ask over one channel until no listener accepts a connection."""
    with connect_to(f"127.0.0.1:{container.grpc}") as channel:
        while True:
            try:
                got["grpc" if read_over_grpc(channel, picture) == 7 else "wrong"] += 1
            except grpc.RpcError as error:
                if "failed to connect" in error.details():
                    return
                # It was not let in, and whoever calls may try another instance.
                got["refused" if error.code() == grpc.StatusCode.UNAVAILABLE else repr(error)] += 1


def test_any_user_without_a_home_serves_models_that_are_mounted(seven):
    mounted = ("-v", f"{ROOT / 'models/mnist-cnn'}:/mounted/mnist-cnn:ro", "-eMNIST_MODELS=/mounted")
    command = ("-u", "HOME", "python3", "-m", "serving", "serve")
    options = (*mounted, "-eMNIST_DEFAULT_MODEL=mnist-cnn", "--entrypoint", "env")
    with running("user", *options, user="54321:54321", command=command) as container:
        environ = container.run("cat", "/proc/1/environ").split("\0")
        assert [variable for variable in environ if variable.startswith("HOME=")] == []
        answer = httpx.post(container.url("/predict"), content=seven).json()
        engine("stop", "-t", "40", container.name)
        assert container.exit_code() == 0
    assert (answer["model"]["name"], answer["predictions"][0]["digit"]) == ("mnist-cnn", 7)


def test_it_refuses_to_start_without_a_gpu_where_it_must_have_one():
    command = [ENGINE, "run", "--rm", *HARDENED, "--network", "none", "-eMNIST_DEVICE=cuda", IMAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    assert done.returncode != 0
    assert "device cuda: " in done.stdout + done.stderr
