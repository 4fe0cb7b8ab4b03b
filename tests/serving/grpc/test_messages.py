import struct

import numpy as np
import pytest

from serving import heavy
from serving.errors import InvalidInput, Unsupported
from serving.grpc import messages
from serving.grpc.messages import read_request, write_response
from serving.grpc.stubs import inference_pb2 as pb
from serving.protocol.messages import InferenceResponse, OutputTensor
from serving.protocol.outputs import ALL

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 28, 28), np.uint8)
MAX_IMAGES = 4
Tensor, Contents = pb.ModelInferRequest.InferInputTensor, pb.InferTensorContents
Wanted, Parameter = pb.ModelInferRequest.InferRequestedOutputTensor, pb.InferParameter


def tensor(datatype: str = "UINT8", shape: tuple[int, ...] = (2, 28, 28), **contents: object) -> Tensor:
    made = Tensor(name="images", datatype=datatype, shape=shape)
    if contents:
        made.contents.CopyFrom(Contents(**contents))
    return made


def request(*tensors: Tensor, raw: tuple[bytes, ...] = (), **fields: object) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(inputs=tensors, raw_input_contents=raw, **fields)


def test_case_e05_raw_and_typed_tensors_are_the_same_images():
    pixels = IMAGES.ravel()
    for made in (
        request(tensor(), raw=(IMAGES.tobytes(),)),
        request(tensor(uint_contents=pixels)),
        request(tensor("FP32", fp32_contents=pixels / 255)),
        request(tensor("FP64", (2, 1, 28, 28), fp64_contents=pixels / 255)),
        request(tensor("FP16"), raw=((IMAGES / 255).astype(np.float16).tobytes(),)),
    ):
        assert np.array_equal(read_request(made, MAX_IMAGES).content, IMAGES)


def test_values_count_as_text_and_many_of_them_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch):
    given = []
    monkeypatch.setattr(messages, "PIECE_VALUES", 1000)
    monkeypatch.setattr(heavy, "give_way", lambda: given.append(1))
    made = request(tensor(uint_contents=IMAGES.ravel()))
    assert messages.text_bytes(made) == IMAGES.size
    assert messages.text_bytes(request(tensor(), raw=(IMAGES.tobytes(),))) == 0
    assert messages.text_bytes(request()) == 0
    large = bytes(heavy.INLINE_BYTES + 1)
    assert messages.text_bytes(request(tensor(), raw=(large,))) == len(large)
    assert np.array_equal(read_request(made, MAX_IMAGES).content, IMAGES)
    assert len(given) == 2


def test_case_e05_raw_and_typed_together_are_refused():
    with pytest.raises(InvalidInput, match="got both"):
        read_request(request(tensor(uint_contents=IMAGES.ravel()), raw=(IMAGES.tobytes(),)), MAX_IMAGES)


@pytest.mark.parametrize("count", [2, 3])
def test_case_e05_as_many_raw_entries_as_inputs(count: int):
    with pytest.raises(InvalidInput, match=f"expected one for each input, 1, got {count}"):
        read_request(request(tensor(), raw=(IMAGES.tobytes(),) * count), MAX_IMAGES)


@pytest.mark.parametrize("tensors", [(), (tensor(), tensor())])
def test_one_input_is_expected(tensors: tuple[Tensor, ...]):
    with pytest.raises(InvalidInput, match=f"inputs: expected one, the tensor 'images', got {len(tensors)}"):
        read_request(request(*tensors), MAX_IMAGES)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (tensor("FP16"), "FP16 travels in raw_input_contents only"),
        (tensor("FP16", fp32_contents=[0.5]), "FP16 travels in raw_input_contents only"),
        (tensor("BF16"), "got datatype 'BF16'"),
        (tensor("UINT8", fp32_contents=[0.5]), "expected uint_contents for UINT8, got fp32_contents"),
        (tensor("UINT8"), "got 0 values, expected 1568"),
        (tensor("UINT8", uint_contents=[300] * 1568), "whole numbers from 0 to 255"),
        (tensor("FP32", fp32_contents=[float("nan")] * 1568), "got values from nan"),
        (tensor("BYTES", (2,), bytes_contents=[b"a"]), "got 1 elements, expected 2"),
        (tensor("BYTES", (2,), uint_contents=[1, 2]), "expected bytes_contents for BYTES"),
    ],
)
def test_what_is_typed_wrongly_is_refused(made: Tensor, said: str):
    with pytest.raises(InvalidInput, match=said):
        read_request(request(made), MAX_IMAGES)


def test_case_e02_a_raw_size_is_told():
    with pytest.raises(InvalidInput, match="got 3135 bytes, expected 3136"):
        read_request(request(tensor("FP32", (1, 1, 28, 28)), raw=(bytes(3135),)), MAX_IMAGES)


def test_case_e07_pictures_come_raw_or_typed():
    pictures = [b"one", b"three"]
    raw = b"".join(struct.pack("<I", len(each)) + each for each in pictures)
    for made in (request(tensor("BYTES", (2,)), raw=(raw,)), request(tensor("BYTES", (2,), bytes_contents=pictures))):
        assert read_request(made, MAX_IMAGES).content == pictures


def test_case_c10_an_empty_batch_is_one():
    assert read_request(request(tensor(shape=(0, 28, 28)), raw=(b"",)), MAX_IMAGES).content.shape == (0, 28, 28)
    assert read_request(request(tensor(shape=(0, 28, 28))), MAX_IMAGES).content.shape == (0, 28, 28)


def test_id_parameters_and_outputs_are_read():
    wanted = [Wanted(name="logits", parameters={"classification": Parameter(int64_param=3)})]
    parameters = {
        "timeout": Parameter(uint64_param=2_000_000),
        "mine": Parameter(string_param="x"),
        "none": Parameter(),
    }
    made = request(tensor(), raw=(IMAGES.tobytes(),), id="é\r\n", outputs=wanted, parameters=parameters)
    read = read_request(made, MAX_IMAGES)
    assert (read.id, read.timeout_s) == ("é\r\n", 2.0)
    assert [(output.name, output.classes) for output in read.outputs] == [("logits", 3)]
    assert read_request(request(tensor(), raw=(IMAGES.tobytes(),)), MAX_IMAGES).outputs == ALL


def test_case_e10_an_unknown_output_is_refused():
    with pytest.raises(InvalidInput, match="no 'label'"):
        read_request(request(tensor(), raw=(IMAGES.tobytes(),), outputs=[Wanted(name="label")]), MAX_IMAGES)


def test_shared_memory_is_not_offered():
    made = tensor()
    made.parameters["shared_memory_region"].string_param = "a"
    with pytest.raises(Unsupported, match="shared memory"):
        read_request(request(made), MAX_IMAGES)


def test_an_answer_is_raw():
    numbers = np.array([[0.5, 1.0]], np.float32)
    outputs = [OutputTensor("a", "FP32", (1, 2), numbers, False), OutputTensor("b", "BYTES", (1, 1), [b"xy"], False)]
    message = write_response(InferenceResponse("m", "1", "mine", outputs))
    assert (message.model_name, message.model_version, message.id) == ("m", "1", "mine")
    assert [(each.name, each.datatype, list(each.shape)) for each in message.outputs] == [
        ("a", "FP32", [1, 2]),
        ("b", "BYTES", [1, 1]),
    ]
    assert list(message.raw_output_contents) == [numbers.tobytes(), b"\x02\x00\x00\x00xy"]
