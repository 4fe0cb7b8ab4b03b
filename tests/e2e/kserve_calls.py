"""Calls a server with KServe's clients and prints what they get, as JSON.

Runs in a process of its own: KServe's stubs and Triton's register the same names.
"""

import asyncio
import json
import sys
from typing import Any

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

MODEL = "mnist-cnn"


def image() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (2, 28, 28), np.uint8)


def request(binary: bool) -> InferRequest:
    tensor = InferInput("images", [2, 28, 28], "UINT8")
    tensor.set_data_from_numpy(image(), binary_data=binary)
    return InferRequest(MODEL, [tensor], request_id="mine")


def typed(binary: bool) -> InferRequest:
    if binary:
        return request(binary=True)
    tensor = InferInput("images", [2, 28, 28], "UINT8", data=image().ravel().tolist())
    return InferRequest(MODEL, [tensor], request_id="mine")


def logits(answer: Any) -> Any:
    (output,) = (output for output in answer.outputs if output.name == "logits")
    return {"id": answer.id, "logits": output.as_numpy().reshape(2, 10).tolist()}


async def call_rest(url: str) -> dict[str, Any]:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    try:
        return {
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url),
            "model_ready": await client.is_model_ready(url, MODEL),
            "unknown_ready": await client.is_model_ready(url, "none"),
            "json": logits(await client.infer(url, request(binary=False), model_name=MODEL)),
            "binary": logits(await client.infer(url, request(binary=True), model_name=MODEL)),
        }
    finally:
        await client.close()


async def call_grpc(address: str) -> dict[str, Any]:
    async with InferenceGRPCClient(address) as client:
        return {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "model_ready": await client.is_model_ready(MODEL),
            "json": logits(await client.infer(typed(binary=False))),
            "binary": logits(await client.infer(typed(binary=True))),
        }


async def main(url: str, address: str) -> None:
    sys.stdout.write(json.dumps({"rest": await call_rest(url), "grpc": await call_grpc(address)}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
