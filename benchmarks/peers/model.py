"""The model as every peer opens it: one thread that does not spin, as the service's. Imported by the peers' servers."""

import sys
from typing import Any

import numpy as np
import onnxruntime as ort

NAMES = ["logits", "probabilities"]


def open_session(path: str) -> ort.InferenceSession:
    """Return a session on the CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = 1, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def arguments() -> tuple[str, int, int]:
    """Return the model's file and the ports of HTTP and gRPC, from the command line."""
    return sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def run(session: ort.InferenceSession, images: "np.ndarray[Any, Any]") -> Any:
    """Return logits and probabilities of uint8 images (N, 28, 28)."""
    return session.run(NAMES, {"images": images})
