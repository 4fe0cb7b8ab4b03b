import grpc
import numpy as np
import pytest
from google.protobuf.message import DecodeError

from serving.errors import TooLarge
from serving.grpc.extent import INFER_REQUEST, NOTHING, check_extent
from serving.grpc.stubs import inference_pb2 as pb
from serving.worker import Worker
from tests.serving.grpc.test_messages import IMAGES, Parameter, Wanted, request, tensor
from tests.serving.grpc.test_service import code_of, value

MAX_IMAGES = 100
PIXELS = np.full(MAX_IMAGES * 784, 255)
SHAPE = (MAX_IMAGES, 28, 28)
RAW = (IMAGES.tobytes(),)
PICTURE = bytes(100_000)


def check(message: pb.ModelInferRequest | bytes, large: object = INFER_REQUEST) -> None:
    check_extent(message if isinstance(message, bytes) else message.SerializeToString(), large, MAX_IMAGES)


@pytest.mark.parametrize(
    "made",
    [
        request(tensor(shape=SHAPE), raw=(PIXELS.astype(np.uint8).tobytes(),), id="x" * 300_000),
        request(tensor("FP64", SHAPE), raw=(PIXELS.astype(np.float64).tobytes(),)),
        request(tensor(shape=SHAPE, uint_contents=PIXELS)),
        request(tensor("FP32", SHAPE, fp32_contents=PIXELS / 255)),
        request(tensor("FP64", SHAPE, fp64_contents=PIXELS / 255)),
        request(tensor("BYTES", (MAX_IMAGES,), bytes_contents=[PICTURE] * MAX_IMAGES)),
        request(tensor("BYTES", (1,)), raw=(PICTURE * 10,)),
        request(tensor(), raw=RAW, parameters={str(number): Parameter(int64_param=-1) for number in range(4000)}),
    ],
)
def test_what_a_request_has_use_for_is_let_through(made: pb.ModelInferRequest):
    assert made.ByteSize() > 32_768
    check(made)


def field(number: int, content: bytes) -> bytes:
    size = len(content)
    return bytes([number << 3 | 2, size & 127 | 128, size >> 7 & 127 | 128, size >> 14]) + content


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (request(*[pb.ModelInferRequest.InferInputTensor()] * 20_000), "more than 4196 fields"),
        (request(tensor(), raw=(b"",) * 20_000), "more than 4196 fields"),
        (request(tensor(), raw=RAW, outputs=[Wanted(name="logits")] * 5000), "more than 4196 fields"),
        (request(tensor("BYTES", (1,), bytes_contents=[b""] * 20_000)), "more than 4196 fields"),
        (b"\x50\x01" * 20_000, "more than 4196 fields"),
        (b"\x53\x54" * 20_000, "more than 4196 fields"),
        (field(5, field(5, b"\x20\x00" * 20_000)), "more than 4196 fields; values come packed, or raw"),
        (request(tensor(), raw=RAW, id="x" * 524_288), "524[0-9]{3} bytes beside its tensors; the limit is 524288"),
        (request(tensor(shape=(1,) * 600_000)), "600[0-9]{3} bytes beside its tensors"),
        (field(4, b"\x08\x01" * 300_000), "600004 bytes beside its tensors"),
        (request(tensor(shape=SHAPE, uint_contents=np.append(PIXELS, 255))), "more values than 100 images"),
        (request(tensor(shape=SHAPE, int64_contents=[0] * (2 * PIXELS.size + 1))), "more values than 100 images"),
    ],
)
def test_what_would_take_long_to_parse_or_to_read_is_refused(made: pb.ModelInferRequest | bytes, said: str):
    with pytest.raises(TooLarge, match=said):
        check(made)


def test_a_call_without_tensors_may_not_be_large():
    with pytest.raises(TooLarge, match="beside its tensors"):
        check(request(tensor(), raw=(PICTURE * 10,)), NOTHING)


@pytest.mark.parametrize(
    "broken",
    [
        b"\x0a" + b"\xff" * 40_000,
        bytes(40_000) + b"\x0a\xff\xff\xff\x7f",
        field(5, b"\x2a\xff\x01" + bytes(100)) + field(7, PICTURE),
        field(7, PICTURE) + b"\x08",
    ],
)
def test_what_is_no_message_is_refused_before_it_is_parsed(broken: bytes):
    with pytest.raises((DecodeError, TooLarge)):
        check(broken)


async def test_a_message_of_outputs_alone_is_refused_at_once_and_counted(worker: Worker, channel: grpc.aio.Channel):
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    made = request(tensor(), raw=RAW, model_name="tiny", outputs=[Wanted(name="logits")] * 90_000)
    code, details = await code_of(call(made.SerializeToString()))
    assert (code, details) == (
        "RESOURCE_EXHAUSTED",
        "the message has more than 6144 fields; values come packed, or raw",
    )
    few = request(tensor(), raw=RAW, model_name="tiny", outputs=[Wanted(name="logits")] * 3000)
    assert await code_of(call(few.SerializeToString())) == ("INVALID_ARGUMENT", "outputs: 'logits' is named twice")
    assert value(worker, "rejected_total", reason="too_large") == 1
