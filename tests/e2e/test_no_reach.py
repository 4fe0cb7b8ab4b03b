"""Whatever a client sends, nothing of it is run, fetched or opened."""

import base64
import contextlib
import io
import itertools
import json
import pickle
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import numpy as np
import psutil
import pytest

from serving.grpc.stubs import inference_pb2 as pb
from tests.e2e.bait import Bait
from tests.e2e.conftest import Start
from tests.e2e.server import Server
from tests.serving.tiny_model import write_tiny_model

INFER = "/v2/models/mnist-cnn/infer"
ROUTES = ["/predict", "/explain", "/classify", INFER, "/v2/repository/index", "/v2/repository/models/other/load"]
PICKLE_TYPES = ["application/vnd.bentoml+pickle", "application/vnd.bentoml.pickle", "application/octet-stream", ""]
ADMIN = {"authorization": "Bearer change"}
SERVICE = "/inference.GRPCInferenceService/"


@pytest.fixture(scope="module")
def bait(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bait]:
    made = Bait(tmp_path_factory.mktemp("bait"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(start: Start, models: Path) -> Server:
    write_tiny_model(models.parent / f"{models.name}-evil", "mnist-cnn", 1)
    return start(MNIST_ADMIN_TOKEN="change", MNIST_MAX_BODY_BYTES="2000000").wait_ready()


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(headers=ADMIN, timeout=20) as made:
        yield made


@pytest.fixture(autouse=True)
def _nothing_is_touched(bait: Bait, server: Server) -> Iterator[None]:
    yield
    assert bait.untouched()
    assert "Traceback" not in server.log
    assert server.get("/readyz").status_code == 200


def urls(server: Server) -> list[str]:
    return [server.url, server.v2_url]


def refused(answer: httpx.Response) -> bool:
    return 400 <= answer.status_code < 500


def test_the_bait_works(tmp_path: Path):
    bait = Bait(tmp_path)
    with contextlib.closing(bait):
        assert bait.untouched()
        pickle.loads(pickle.dumps(bait)).close()
        assert bait.marker.exists()
        bait.picture.read_bytes()
        assert bait.opened
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, bait.port), 5) as connection:
                assert connection.recv(1) == b""
        assert bait.calls == 2


@pytest.mark.parametrize("route", ROUTES)
def test_case_h02_no_route_unpickles_a_body(server: Server, client: httpx.Client, bait: Bait, route: str):
    meta = {"format": "pickle5", "pickle_bytes_str": base64.b64encode(pickle.dumps(bait)).decode(), "indices": []}
    for url, kind, protocol in itertools.product(urls(server), PICKLE_TYPES, (0, 2, 5)):
        for container in ("NdarrayContainer", "DefaultContainer", "PandasDataFrameContainer"):
            headers = {"payload-container": container, "payload-meta": json.dumps(meta), "args-number": "1"}
            headers |= {"content-type": kind} if kind else {}
            answer = client.post(url + route, content=pickle.dumps(bait, protocol), headers=headers)
            assert refused(answer), (url, kind, answer.text)


def test_case_h02_no_form_tensor_array_or_header_is_unpickled(server: Server, client: httpx.Client, bait: Bait):
    packed = pickle.dumps(bait)
    array = io.BytesIO()
    np.save(array, np.array([bait], object), allow_pickle=True)
    element = {"name": "images", "datatype": "BYTES", "shape": [1]}
    binary = json.dumps({"inputs": [element | {"parameters": {"binary_data_size": len(packed) + 4}}]}).encode()
    length = {"inference-header-content-length": str(len(binary))}
    text = base64.b64encode(packed).decode()
    for url in urls(server):
        for route, options in (
            ("/predict", {"files": {"file": ("a.pkl", packed, "application/vnd.bentoml+pickle")}}),
            ("/predict", {"content": array.getvalue(), "headers": {"content-type": "application/x-npy"}}),
            ("/predict", {"json": {"images": [text]}}),
            ("/classify", {"files": {"images": ("a.npy", array.getvalue(), "application/vnd.bentoml+pickle")}}),
            ("/classify", {"json": {"images": text}}),
            (INFER, {"json": {"inputs": [element | {"data": [text]}]}}),
            (INFER, {"content": binary + struct.pack("<I", len(packed)) + packed, "headers": length}),
        ):
            answer = client.post(url + route, **options)
            assert refused(answer), (route, answer.text)
        said = {"cookie": text, "payload-meta": text, "x-request-id": text, "bento-name": text, "authorization": text}
        assert client.post(f"{url}/predict", json={"pixels": [1] * 784}, headers=said).status_code == 200


def test_case_h02_nothing_listens_but_the_ports(server: Server):
    root = psutil.Process(server.process.pid)
    listening = {
        each.laddr.port
        for process in (root, *root.children(recursive=True))
        for each in process.connections("inet")
        if each.status == psutil.CONN_LISTEN
    }
    assert listening == {server.port, server.v2_port, server.grpc_port}


def addresses(bait: Bait) -> list[str]:
    hosts = ["127.0.0.1", "[::1]", "localhost", "0x7f000001", "2130706433", "0177.0.0.1", "user@127.0.0.1"]
    return [
        *(f"http://{host}:{bait.port}/x.png" for host in hosts),
        f"//127.0.0.1:{bait.port}/x.png",
        f"ftp://127.0.0.1:{bait.port}/x.png",
        f"gopher://127.0.0.1:{bait.port}/_x",
        f"data:image/png,http://127.0.0.1:{bait.port}/x.png",
        f"file://{bait.picture}",
        f"{bait.picture}",
        f"../{bait.picture.name}",
    ]


def test_case_h03_no_url_is_fetched_and_no_path_is_opened(server: Server, client: httpx.Client, bait: Bait):
    element = {"name": "images", "datatype": "BYTES", "shape": [1]}
    for url, address in itertools.product(urls(server), addresses(bait)):
        svg = f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{address}"/></svg>'
        raw = struct.pack("<I", len(address)) + address.encode()
        head = json.dumps({"inputs": [element | {"parameters": {"binary_data_size": len(raw)}}]}).encode()
        length = {"inference-header-content-length": str(len(head))}
        for route, options in (
            ("/predict", {"content": address}),
            ("/predict", {"content": svg, "headers": {"content-type": "image/svg+xml"}}),
            ("/predict", {"data": {"image": address}}),
            ("/predict", {"files": {"image": (None, address)}}),
            ("/predict", {"files": {"image": (address, b"")}}),
            ("/predict", {"json": {"image": address}}),
            ("/predict", {"json": {"images": [address]}}),
            ("/predict", {"json": {"pixels": address}}),
            ("/predict", {"params": {"model": address}, "content": b"x"}),
            ("/explain", {"content": address}),
            ("/classify", {"json": {"images": address}}),
            ("/classify", {"files": {"images": (None, address)}}),
            (INFER, {"json": {"inputs": [element | {"data": [address]}]}}),
            (INFER, {"json": {"inputs": [element | {"data": [base64.b64encode(address.encode()).decode()]}]}}),
            (INFER, {"content": head + raw, "headers": length}),
            ("/v2/repository/models/other/load", {"json": {"parameters": {"config": address}}}),
            ("/v2/repository/models/other/load", {"json": {"parameters": {"file:1/model.onnx": address}}}),
        ):
            answer = client.post(url + route, **options)
            assert answer.status_code == 501 if "load" in route else refused(answer), (route, options, answer.text)
        said = ("referer", "origin", "x-forwarded-host", "x-original-url", "forwarded", "location", "host", "callback")
        ended = client.post(f"{url}/predict", json={"pixels": [1] * 784}, headers=dict.fromkeys(said, address))
        assert ended.status_code == 200


def test_case_h03_and_h04_grpc_neither_fetches_nor_opens(server: Server, bait: Bait, models: Path):
    def call(name: str, message: object) -> str:
        ask = channel.unary_unary(SERVICE + name, lambda each: each.SerializeToString())
        with pytest.raises(grpc.RpcError) as caught:
            ask(message, metadata=[("authorization", "Bearer change")], timeout=20)
        return caught.value.code().name

    tensor = pb.ModelInferRequest.InferInputTensor(name="images", datatype="BYTES", shape=[1])
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        for text in (*(address.encode() for address in addresses(bait)), pickle.dumps(bait)):
            raw = [struct.pack("<I", len(text)) + text]
            request = pb.ModelInferRequest(model_name="mnist-cnn", inputs=[tensor], raw_input_contents=raw)
            assert call("ModelInfer", request) == "INVALID_ARGUMENT"
        for name in (f"../{models.name}-evil/mnist-cnn", str(models / "mnist-cnn"), f"http://127.0.0.1:{bait.port}"):
            assert call("ModelInfer", pb.ModelInferRequest(model_name=name, inputs=[tensor])) == "NOT_FOUND"
            assert call("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name=name)) == "NOT_FOUND"
        for name in ("TraceSetting", "LogSettings", "SystemSharedMemoryRegister", "CudaSharedMemoryRegister"):
            assert call(name, pb.ServerLiveRequest()) == "UNIMPLEMENTED"


def test_case_h04_no_name_leads_out_of_the_repository(server: Server, client: httpx.Client, models: Path):
    outside = f"{models.name}-evil"
    for url, separator in itertools.product(urls(server), ("/", "%2f", "%252f", "%5c", "..%00/")):
        for name in (f"..{separator}{outside}{separator}mnist-cnn", f"{separator}etc{separator}passwd", "%2e%2e"):
            for method, path in (("GET", f"/v2/models/{name}"), ("POST", f"/v2/repository/models/{name}/load")):
                answer = client.request(method, url + path)
                assert answer.status_code in (404, 405), (path, answer.text)
            assert client.post(f"{url}/predict?model={name}", content=b"x").status_code == 404
            assert client.post(f"{url}/predict?version={name}", content=b"x").status_code in (400, 404)
            assert client.get(f"{url}/web/{name}").status_code == 404


ELSEWHERE = """
    /v2/logging /v2/logging/ /v2/trace/setting /v2/systemsharedmemory/status
    /v2/repository/models/other/unload/x /static_content/x /docs.json /debug /debug/pprof/
    /server-status /.env /.git/config /api/v1/models /manage /console /actuator/env
"""


@pytest.mark.parametrize("path", ELSEWHERE.split())
def test_case_h06_what_other_servers_offer_is_not_there(server: Server, path: str):
    for url, method in itertools.product(urls(server), ("GET", "POST", "PUT", "DELETE")):
        assert httpx.request(method, url + path).status_code == 404


def test_case_h06_without_a_token_nobody_manages(server: Server, client: httpx.Client):
    for url in urls(server):
        assert httpx.post(f"{url}/v2/repository/models/other/unload").status_code == 401
        assert httpx.post(f"{url}/v2/repository/models/other/load").status_code == 401
        assert client.post(f"{url}/v2/repository/models/other/load", json={}).status_code == 200
        # As TorchServe would register one.
        assert client.post(f"{url}/models?url=http://127.0.0.1/other.mar").status_code == 405
