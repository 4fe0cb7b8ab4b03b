"""Ray Serve in its documentation's high throughput mode: one replica behind HAProxy, access log and dashboard off.

Its proxy in Python, which is what runs without that mode, takes ten times the processor time.
"""

import json
import os

import cv2
import numpy as np
import ray
from model import arguments, open_session, run
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

FILE, HTTP_PORT, _ = arguments()

# HAProxy asks the proxy in Python until it knows the replica, and closes connections when it does: ready only then.
FALLBACK_PORT = int(os.environ["RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"])


@serve.deployment(num_replicas=1, max_ongoing_requests=64)
class Digits:
    """Reads digits."""

    def __init__(self, file: str) -> None:
        self.session = open_session(file)

    async def __call__(self, request: Request) -> Response:
        """Answer JSON with JSON, raw pixels with raw probabilities, and a 28x28 picture as it is."""
        if request.method == "GET":
            return Response(status_code=503 if request.scope["server"][1] == FALLBACK_PORT else 200)
        body = await request.body()
        if request.url.path == "/binary":
            images = np.frombuffer(body, np.uint8).reshape(-1, 28, 28)
            return Response(run(self.session, images)[1].tobytes(), media_type="application/octet-stream")
        if request.url.path == "/json":
            images = np.array(json.loads(body)["images"], np.uint8)
        else:
            images = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_GRAYSCALE)[None]
        logits, probabilities = run(self.session, images)
        return JSONResponse({"logits": logits.tolist(), "probabilities": probabilities.tolist()})


if __name__ == "__main__":
    ray.init(include_dashboard=False, object_store_memory=100_000_000)
    serve.start(http_options={"host": "127.0.0.1", "port": HTTP_PORT}, logging_config={"enable_access_log": False})
    serve.run(Digits.bind(FILE), blocking=True)
