"""The least that a Python server can cost: bare Starlette, and bare `grpc.aio`, around the same model, without checks.

Run: .venv/bin/python benchmarks/floor.py --http-port 9000 --grpc-port 9001 [--model mnist-cnn] [--threads 1]

What the service is measured against by `benchmarks/bench.py`. uvloop, httptools, orjson; no validation, no
batching, no metrics, no limits, one process.
"""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]
import orjson
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from serving.grpc.stubs import inference_pb2 as pb  # noqa: E402
from serving.repository import Repository  # noqa: E402

NAMES = ["logits", "probabilities"]
LENGTH = "inference-header-content-length"


def open_session(model: str, threads: int) -> ort.InferenceSession:
    """Return a session on the CPU that does not spin, as the service's."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    path = Repository(ROOT / "models").folder(model) / "model.onnx"
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Floor:
    """Answers requests that are taken to be right.

    Args:
        session: of the model.
    """

    def __init__(self, session: ort.InferenceSession):
        self._session = session

    def _run(self, images: "np.ndarray[Any, Any]") -> Any:
        return self._session.run(NAMES, {"images": images})

    async def ready(self, _: Request) -> Response:
        """Answer as soon as the server listens."""
        return Response()

    async def infer(self, request: Request) -> Response:
        """Answer JSON with JSON, and a binary tensor with binary tensors."""
        body, length = await request.body(), request.headers.get(LENGTH)
        if length is None:
            tensor = orjson.loads(body)["inputs"][0]
            images = np.array(tensor["data"], np.uint8).reshape(tensor["shape"])
            return self._as_json(self._run(images))
        tensor = orjson.loads(body[: int(length)])["inputs"][0]
        images = np.frombuffer(body, np.uint8, offset=int(length)).reshape(tensor["shape"])
        return self._as_bytes(self._run(images))

    def _as_json(self, results: Any) -> Response:
        pairs = zip(NAMES, results, strict=True)
        outputs = [
            {"name": name, "datatype": "FP32", "shape": each.shape, "data": each.ravel()} for name, each in pairs
        ]
        text = orjson.dumps({"model_name": "floor", "outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(text, media_type="application/json")

    def _as_bytes(self, results: Any) -> Response:
        blobs = [each.tobytes() for each in results]
        outputs = [
            {"name": name, "datatype": "FP32", "shape": each.shape, "parameters": {"binary_data_size": each.nbytes}}
            for name, each in zip(NAMES, results, strict=True)
        ]
        head = orjson.dumps({"model_name": "floor", "outputs": outputs})
        return Response(head + b"".join(blobs), headers={LENGTH: str(len(head))})

    async def predict(self, request: Request) -> Response:
        """Read a 28x28 picture as it is."""
        grey = cv2.imdecode(np.frombuffer(await request.body(), np.uint8), cv2.IMREAD_GRAYSCALE)
        assert grey is not None
        probabilities = self._run(grey[None])[1][0]
        content = {"digit": int(probabilities.argmax()), "probabilities": probabilities.tolist()}
        return Response(orjson.dumps(content), media_type="application/json")

    async def call(self, message: pb.ModelInferRequest, _: Any) -> pb.ModelInferResponse:
        """Answer a raw tensor over gRPC."""
        shape = tuple(message.inputs[0].shape)
        results = self._run(np.frombuffer(message.raw_input_contents[0], np.uint8).reshape(shape))
        described = [
            pb.ModelInferResponse.InferOutputTensor(name=name, datatype="FP32", shape=each.shape)
            for name, each in zip(NAMES, results, strict=True)
        ]
        raw = [each.tobytes() for each in results]
        return pb.ModelInferResponse(model_name="floor", outputs=described, raw_output_contents=raw)


async def serve(floor: Floor, http_port: int, grpc_port: int) -> None:
    """Serve on both ports until the process is told to stop."""
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        floor.call, pb.ModelInferRequest.FromString, pb.ModelInferResponse.SerializeToString
    )
    name = "inference.GRPCInferenceService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"ModelInfer": handler}),))
    server.add_insecure_port(f"127.0.0.1:{grpc_port}")
    await server.start()
    routes = [
        Route("/ready", floor.ready),
        Route("/v2/models/{model}/infer", floor.infer, methods=["POST"]),
        Route("/predict", floor.predict, methods=["POST"]),
    ]
    config = uvicorn.Config(Starlette(routes=routes), port=http_port, log_level="warning", access_log=False)
    await uvicorn.Server(config).serve()
    await server.stop(None)


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--http-port", type=int, required=True)
    parser.add_argument("--grpc-port", type=int, required=True)
    parser.add_argument("--model", default="mnist-cnn")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    floor = Floor(open_session(arguments.model, arguments.threads))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(floor, arguments.http_port, arguments.grpc_port))


if __name__ == "__main__":
    main()
