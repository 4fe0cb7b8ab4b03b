"""FastAPI and uvicorn[standard] as one writes them by hand: no batching, no checks but the types'."""

import cv2
import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response, UploadFile
from model import arguments, open_session, run
from pydantic import BaseModel

FILE, HTTP_PORT, _ = arguments()
session = open_session(FILE)
app = FastAPI()


class Images(BaseModel):
    """Digits as nested lists."""

    images: list[list[list[int]]]


@app.get("/ready")
async def ready() -> bool:
    """Answer as soon as the server listens."""
    return True


@app.post("/json")
async def from_json(body: Images) -> dict[str, list[list[float]]]:
    """Answer JSON with JSON."""
    logits, probabilities = run(session, np.array(body.images, np.uint8))
    return {"logits": logits.tolist(), "probabilities": probabilities.tolist()}


@app.post("/binary")
async def from_bytes(request: Request) -> Response:
    """Answer raw pixels with raw probabilities."""
    images = np.frombuffer(await request.body(), np.uint8).reshape(-1, 28, 28)
    return Response(run(session, images)[1].tobytes(), media_type="application/octet-stream")


@app.post("/png")
async def from_picture(file: UploadFile) -> dict[str, int | list[float]]:
    """Read a 28x28 picture as it is."""
    grey = cv2.imdecode(np.frombuffer(await file.read(), np.uint8), cv2.IMREAD_GRAYSCALE)
    probabilities = run(session, grey[None])[1][0]
    return {"digit": int(probabilities.argmax()), "probabilities": probabilities.tolist()}


if __name__ == "__main__":
    uvicorn.run(app, port=HTTP_PORT, log_level="warning", access_log=False)
