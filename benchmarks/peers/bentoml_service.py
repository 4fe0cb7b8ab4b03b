"""BentoML as its documentation shows: adaptive batching for tensors, a picture as a PIL image."""

import os
from typing import Any

import bentoml
import numpy as np
from model import open_session, run
from PIL.Image import Image

SIDE = 28


@bentoml.service(http={"port": int(os.environ["PEER_PORT"])}, metrics={"enabled": True})
class Digits:
    """Reads digits."""

    def __init__(self) -> None:
        self.session = open_session(os.environ["PEER_MODEL"])

    @bentoml.api(batchable=True, max_batch_size=64)
    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return probabilities (N, 10) of images (N, 28, 28)."""
        return run(self.session, images.astype(np.uint8))[1]

    @bentoml.api
    def picture(self, image: Image) -> dict[str, Any]:
        """Read a 28x28 picture as it is."""
        probabilities = run(self.session, np.asarray(image.convert("L"))[None])[1][0]
        return {"digit": int(probabilities.argmax()), "probabilities": probabilities.tolist()}
