"""PyTriton: Triton's C++ front end around a Python function, batches as its documentation shows."""

import numpy as np
from model import arguments, open_session, run
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

FILE, HTTP_PORT, GRPC_PORT = arguments()
session = open_session(FILE)


@batch
def infer(images):
    """Run one batch."""
    logits, probabilities = run(session, images)
    return {"logits": logits, "probabilities": probabilities}


with Triton(config=TritonConfig(http_port=HTTP_PORT, grpc_port=GRPC_PORT, allow_metrics=False)) as triton:
    triton.bind(
        model_name="mnist-cnn",
        infer_func=infer,
        inputs=[Tensor(name="images", dtype=np.uint8, shape=(28, 28))],
        outputs=[Tensor(name=name, dtype=np.float32, shape=(10,)) for name in ("logits", "probabilities")],
        config=ModelConfig(max_batch_size=256),
    )
    triton.serve()
