"""Ray Serve behind FastAPI, one replica, as its documentation shows."""

import numpy as np
import ray
from fastapi import FastAPI, Request, Response
from model import arguments, open_session, run
from ray import serve

FILE, HTTP_PORT, _ = arguments()
app = FastAPI()


@serve.deployment(num_replicas=1)
@serve.ingress(app)
class Digits:
    """Reads digits."""

    def __init__(self) -> None:
        self.session = open_session(FILE)

    @app.get("/ready")
    async def ready(self) -> bool:
        """Answer as soon as the replica runs."""
        return True

    @app.post("/json")
    async def from_json(self, request: Request) -> dict[str, list[list[float]]]:
        """Answer JSON with JSON."""
        images = np.array((await request.json())["images"], np.uint8)
        return {"probabilities": run(self.session, images)[1].tolist()}

    @app.post("/binary")
    async def from_bytes(self, request: Request) -> Response:
        """Answer raw pixels with raw probabilities."""
        images = np.frombuffer(await request.body(), np.uint8).reshape(-1, 28, 28)
        return Response(run(self.session, images)[1].tobytes())


if __name__ == "__main__":
    ray.init(include_dashboard=False, logging_level="warning")
    serve.start(http_options={"host": "127.0.0.1", "port": HTTP_PORT})
    serve.run(Digits.bind(), blocking=True)
