"""In which forms `benchmarks.answers` finds a model's probabilities, and which answers hold none."""

import json

import numpy as np
import pytest

from benchmarks.answers import holds
from serving.grpc.stubs import inference_pb2 as pb

PROBABILITIES = np.random.default_rng(0).dirichlet(np.ones(10), 2).astype(np.float32)
LOGITS = np.log(PROBABILITIES)
RAW = PROBABILITIES.tobytes()
VALUES, FLAT = PROBABILITIES.tolist(), PROBABILITIES.ravel().tolist()


def message(**fields: object) -> pb.ModelInferResponse:
    return pb.ModelInferResponse(model_name="m", **fields)


def values(numbers: list[float]) -> pb.ModelInferResponse:
    contents = pb.InferTensorContents(fp32_contents=numbers)
    return message(outputs=[{"name": "probabilities", "contents": contents}])


@pytest.mark.parametrize(
    "answer",
    [
        json.dumps(VALUES).encode(),
        json.dumps({"logits": LOGITS.tolist(), "probabilities": VALUES}).encode(),
        json.dumps({"outputs": [{"name": "logits", "data": [1] * 20}, {"name": "p", "data": FLAT}]}).encode(),
        RAW,
        b'{"outputs": []}' + LOGITS.tobytes() + RAW,
        b'{"outputs": []}' + RAW + LOGITS.tobytes(),
        message(raw_output_contents=[LOGITS.tobytes(), RAW]),
        values(FLAT),
    ],
)
def test_probabilities_are_found_in_every_form(answer):
    assert holds(answer, PROBABILITIES)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"Internal Server Error",
        json.dumps({"error": "no model"}).encode(),
        json.dumps(VALUES[::-1]).encode(),
        json.dumps(VALUES[:1]).encode(),
        json.dumps({"data": [*FLAT, "x"]}).encode(),
        LOGITS.tobytes(),
        RAW[:-4],
        message(raw_output_contents=[LOGITS.tobytes()]),
        message(),
        values(FLAT[::-1]),
    ],
)
def test_other_answers_hold_none(answer):
    assert not holds(answer, PROBABILITIES)
