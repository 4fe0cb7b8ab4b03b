"""The hot path of gRPC: an ordinary inference, from the message's bytes to the answer's, in the thread of the server.

What is ordinary can be answered at once: a small tensor, a model that is idle and runs requests singly, nothing wrong.
Everything else is left to the event loop, which reads the message from the beginning.
Must not know: connections.
"""

import time

from serving.catalogue import Catalogue
from serving.grpc.calls import Gate
from serving.grpc.core_call import Answer, Metadata
from serving.grpc.messages import read_request, write_response
from serving.grpc.stubs import inference_pb2 as pb
from serving.heavy import INLINE_TEXT_BYTES
from serving.logs import choose_request_id
from serving.metrics import Metrics
from serving.protocol.inference import run_now

METHOD = "ModelInfer"


class Express:
    """Answers ordinary inferences.

    Args:
        catalogue: the models.
        metrics: told of every call that is answered.
        gate: says whether calls are let in.
        max_images: of one request.
    """

    def __init__(self, catalogue: Catalogue, metrics: Metrics, gate: Gate, max_images: int):
        self._catalogue, self._metrics, self._gate, self._max_images = catalogue, metrics, gate, max_images

    def answer(self, message: bytes, metadata: Metadata, remaining_s: float | None) -> Answer | None:
        """Answer a call; None where it is the event loop's to answer."""
        if self._gate.closed or len(message) > INLINE_TEXT_BYTES or (remaining_s is not None and remaining_s <= 0):
            return None
        started = time.perf_counter()
        try:
            found = self._infer(pb.ModelInferRequest.FromString(message))
        except Exception:
            # The event loop comes upon the same, tells the caller and, where it is our fault, the log.
            return None
        if found is None:
            return None
        model, content = found
        self._metrics.request("grpc", "", METHOD, model, "OK", time.perf_counter() - started)
        given = next((value for key, value in metadata if key == "x-request-id"), "")
        own_id = choose_request_id(given if isinstance(given, str) else "")
        return Answer(content, (("x-request-id", own_id),))

    def _infer(self, message: pb.ModelInferRequest) -> tuple[str, bytes] | None:
        """Return the model's name and the answer."""
        predictor = self._catalogue.get(message.model_name, message.model_version)
        if not (predictor.batcher.idle and predictor.batcher.singly):
            return None
        response = run_now(predictor, read_request(message, self._max_images))
        return None if response is None else (predictor.name, write_response(response).SerializeToString())
