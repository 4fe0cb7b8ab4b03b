"""A handler for TorchServe, as its documentation shows: it is given the requests of one batch and answers each.

Batches of up to 32, for which it waits 1 ms, halve its processor time; one connection waits 2 ms instead of 0.6.
"""

import cv2
import numpy as np
from model import open_session, run

PNG = b"\x89PNG"


class Digits:
    """Reads digits."""

    def initialize(self, context):
        """Open the model."""
        folder, file = context.system_properties["model_dir"], context.manifest["model"]["serializedFile"]
        self.session = open_session(f"{folder}/{file}")

    def handle(self, data, context):  # noqa: ARG002  TorchServe's own signature
        """Answer raw pixels with raw probabilities, JSON and a 28x28 picture with JSON."""
        bodies = [row.get("body") for row in data]
        images = [_images(body) for body in bodies]
        ends = np.cumsum([len(each) for each in images])[:-1]
        outputs = (np.split(each, ends) for each in run(self.session, np.concatenate(images)))
        return [_answer(*each) for each in zip(bodies, *outputs, strict=True)]


def _images(body):
    if not body:  # asks whether the worker is ready
        return np.zeros((1, 28, 28), np.uint8)
    if isinstance(body, dict):
        return np.array(body["images"], np.uint8)
    if body.startswith(PNG):
        return cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_GRAYSCALE)[None]
    return np.frombuffer(body, np.uint8).reshape(-1, 28, 28)


def _answer(body, logits, probabilities):
    if isinstance(body, bytearray) and not body.startswith(PNG):
        return probabilities.tobytes()
    return {"logits": logits.tolist(), "probabilities": probabilities.tolist()}
