import base64
import json
import struct
from typing import Any

import numpy as np
import orjson
import pytest

from serving.errors import InvalidInput, TooLarge, Unsupported
from serving.heavy import INLINE_BYTES
from serving.http.v2_messages import read_request, text_bytes, write_response
from serving.protocol.messages import InferenceResponse, OutputTensor
from serving.protocol.outputs import ALL, ALL_BINARY
from tests.serving.fakes import LIMITS

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 28, 28), np.uint8)


def tensor(**changes: Any) -> dict[str, Any]:
    fields = {"name": "images", "shape": [2, 28, 28], "datatype": "UINT8", "data": IMAGES.ravel().tolist()}
    return {name: value for name, value in (fields | changes).items() if value is not ...}


def binary(raw: bytes, size: int | None = None, **changes: Any) -> tuple[bytes, str]:
    parameters = {"binary_data_size": len(raw) if size is None else size}
    head = orjson.dumps({"inputs": [tensor(data=..., parameters=parameters, **changes)]})
    return head + raw, str(len(head))


def read(**fields: Any) -> Any:
    return read_request(orjson.dumps({"inputs": [tensor()]} | fields), None, LIMITS)


def test_json_and_binary_tensors_are_the_same_images():
    assert np.array_equal(read().content, IMAGES)
    assert np.array_equal(read_request(*binary(IMAGES.tobytes()), LIMITS).content, IMAGES)


def test_case_c10_an_empty_list_is_an_empty_batch():
    assert read(inputs=[tensor(shape=[0, 28, 28], data=[])]).content.shape == (0, 28, 28)
    assert read(inputs=[tensor(shape=[0], datatype="BYTES", data=[])]).content == []


@pytest.mark.parametrize("given", ["abc", "", "5", "x" * 300_000, "a\r\nb: c", "日本 \u0000 \U0001f600", 'a"b'])
def test_case_e08_an_id_is_kept_as_it_is(given: str):
    request = read(id=given)
    assert request.id == given
    body, headers = write_response(InferenceResponse("m", "1", request.id, []))
    assert json.loads(body)["id"] == given
    assert not any("\n" in value for value in headers.values())


def test_case_e08_without_an_id_none_is_made_up():
    assert read().id is None
    assert read(id=None).id is None
    assert "id" not in json.loads(write_response(InferenceResponse("m", "1", None, []))[0])


@pytest.mark.parametrize("given", [5, True, [], {}])
def test_case_e08_an_id_that_is_no_string_is_refused(given: object):
    with pytest.raises(InvalidInput, match="id: expected a string, got"):
        read(id=given)


def test_case_e08_an_id_that_makes_an_answer_of_megabytes_is_refused():
    with pytest.raises(TooLarge, match="id: 524289 characters; the limit is 524288"):
        read(id="x" * 524_289)


@pytest.mark.parametrize(
    "fields",
    [
        {"inputs": [tensor(name="x" * 100_000)]},
        {"inputs": [tensor(datatype="x" * 100_000)]},
        {"inputs": [tensor(shape=[1] * 100_000)]},
        {"inputs": [tensor(data=..., parameters={"binary_data_size": "x" * 100_000})]},
        {"outputs": [{"name": "x" * 100_000}]},
        {"outputs": [{"name": "logits", "parameters": {"binary_data": "x" * 100_000}}]},
        {"outputs": [{"name": "logits", "parameters": {"classification": "x" * 100_000}}]},
        {"parameters": {"timeout": "x" * 100_000}},
        {"parameters": {"x" * 100_000: None}},
    ],
)
def test_a_refusal_does_not_repeat_all_of_what_was_sent(fields: dict[str, Any]):
    with pytest.raises(InvalidInput) as caught:
        read(**fields)
    assert len(str(caught.value)) < 300


def test_case_e01_a_raw_body_is_one_image_and_gets_binary_outputs():
    request = read_request(IMAGES[0].tobytes(), "0", LIMITS)
    assert np.array_equal(request.content, IMAGES[:1])
    assert request.outputs == ALL_BINARY
    with pytest.raises(InvalidInput, match="got 783 bytes, expected 784"):
        read_request(bytes(783), "0", LIMITS)


@pytest.mark.parametrize("value", ["-1", "abc", "", "1e3", "٣", "9" * 30, "999999"])
def test_case_e01_a_length_that_is_none_is_refused(value: str):
    body, _ = binary(IMAGES.tobytes())
    with pytest.raises(InvalidInput, match="Inference-Header-Content-Length"):
        read_request(body, value, LIMITS)


def test_case_e01_without_the_length_the_bytes_are_no_json():
    body, _ = binary(IMAGES.tobytes())
    with pytest.raises(InvalidInput, match="the body is not JSON"):
        read_request(body, None, LIMITS)


@pytest.mark.parametrize("size", [0, 1567, 1569, -1, True, "1568", 1.5])
def test_case_e01_a_size_that_is_not_what_follows_is_refused(size: Any):
    with pytest.raises(InvalidInput, match="binary_data_size"):
        read_request(*binary(IMAGES.tobytes(), size), LIMITS)


def test_a_length_may_be_that_of_the_whole_body():
    body = orjson.dumps({"inputs": [tensor()]})
    assert np.array_equal(read_request(body, str(len(body)), LIMITS).content, IMAGES)


def test_what_has_to_be_parsed_is_json_and_large_tensors():
    small, large = bytes(1000), bytes(INLINE_BYTES + 1)
    assert [text_bytes(small, length) for length in (None, "10", "0", "10x", "")] == [1000, 10, 0, 0, 0]
    assert text_bytes(large, "10") == len(large)


def test_bytes_that_belong_to_no_input_are_refused():
    head = orjson.dumps({"inputs": [tensor()]})
    with pytest.raises(InvalidInput, match="4 bytes follow the JSON"):
        read_request(head + b"more", str(len(head)), LIMITS)


def test_data_and_binary_data_together_are_refused():
    with pytest.raises(InvalidInput, match="got both"):
        read(inputs=[tensor(parameters={"binary_data_size": 0})])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"inputs": None}, "inputs: expected a list of one object, the tensor 'images', got null"),
        ({"inputs": "a"}, "inputs: .* got a string"),
        ({"inputs": []}, "inputs: .* got 0 of them"),
        ({"inputs": [tensor(), tensor()]}, "inputs: .* got 2 of them"),
        ({"inputs": [5]}, r"inputs\[0\]: expected an object, got a number"),
        ({"inputs": [tensor(name=...)]}, r"inputs\[0\].name: expected a string, got null"),
        ({"inputs": [tensor(datatype=5)]}, r"inputs\[0\].datatype: expected a string, got a number"),
        ({"inputs": [tensor(shape="1,28,28")]}, r"inputs\[0\].shape: expected a list of whole numbers"),
        ({"inputs": [tensor(shape=[True, 28, 28])]}, r"inputs\[0\].shape"),
        ({"inputs": [tensor(shape=[1.0, 28, 28])]}, r"inputs\[0\].shape"),
        ({"inputs": [tensor(name="pixels")]}, "input 'pixels': the model's only input is 'images'"),
        ({"inputs": [tensor(shape=[1568])]}, r"got UINT8 of shape \[1568\]"),
        ({"inputs": [tensor(data=...)]}, r"inputs\[0\].data: expected a list, got null"),
        ({"inputs": [tensor(data="a")]}, r"inputs\[0\].data: expected a list, got a string"),
        ({"inputs": [tensor(data={})]}, r"inputs\[0\].data: expected a list, got an object"),
        ({"inputs": [tensor(parameters=[])]}, r"inputs\[0\].parameters: expected an object"),
        ({"parameters": 5}, "parameters: expected an object, got a number"),
        ({"parameters": {"binary_data_output": "yes"}}, "binary_data_output: expected true or false"),
        ({"parameters": {"timeout": "soon"}}, "parameters.timeout"),
        ({"outputs": {}}, "outputs: expected a list, got an object"),
        ({"outputs": ["logits"]}, r"outputs\[0\]: expected an object with a name"),
        ({"outputs": [{}]}, r"outputs\[0\]: expected an object with a name"),
        ({"outputs": [{"name": "logits", "parameters": 5}]}, r"outputs\[0\].parameters: expected an object"),
    ],
)
def test_case_d08_every_refusal_names_the_field(fields: dict[str, Any], said: str):
    with pytest.raises(InvalidInput, match=said):
        read(**fields)


def test_more_images_than_one_request_may_hold_are_refused_before_their_data_are_looked_at():
    with pytest.raises(TooLarge, match=f"the limit is {LIMITS.images}"):
        read(inputs=[tensor(shape=[LIMITS.images + 1, 28, 28], data="no list")])


@pytest.mark.parametrize("root", [[], None, 5, "a", True])
def test_case_d08_a_request_is_an_object(root: object):
    with pytest.raises(InvalidInput, match="expected an object with inputs"):
        read_request(orjson.dumps(root), None, LIMITS)


@pytest.mark.parametrize("value", [True, "1", None])
def test_case_d08_a_boolean_among_the_pixels_is_refused(value: object):
    data = IMAGES.ravel().tolist()
    data[1000] = value
    with pytest.raises(InvalidInput, match="value 1000 is"):
        read(inputs=[tensor(data=data)])


def test_case_e06_fp16_in_json_is_refused():
    with pytest.raises(InvalidInput, match="FP16 travels as binary data only"):
        read(inputs=[tensor(datatype="FP16", data=(IMAGES / 255).ravel().tolist())])


def test_case_e07_pictures_come_as_base64_or_behind_the_json():
    pictures = [b"one", b"two"]
    texts = [base64.b64encode(picture).decode() for picture in pictures]
    assert read(inputs=[tensor(shape=[2], datatype="BYTES", data=texts)]).content == pictures
    raw = b"".join(struct.pack("<I", 3) + picture for picture in pictures)
    assert read_request(*binary(raw, shape=[2], datatype="BYTES"), LIMITS).content == pictures


@pytest.mark.parametrize(
    ("element", "said"),
    [
        ("http://127.0.0.1:9999/x.png", "URLs are not accepted"),
        ("file:///etc/passwd", "URLs are not accepted"),
        ("//host", "expected a picture as base64"),
        ("AA AA", "expected a picture as base64"),
        ("AAAA\n", "expected a picture as base64"),
        ("é", "expected a picture as base64"),
        (5, "got a number"),
        ([], "got a list"),
    ],
)
def test_case_h03_an_element_that_is_no_base64_is_refused_by_its_place(element: object, said: str):
    with pytest.raises(InvalidInput, match=r"inputs\[0\]\.data\[1\]: .*" + said):
        read(inputs=[tensor(shape=[2], datatype="BYTES", data=["AAAA", element])])


def test_elements_are_counted():
    with pytest.raises(InvalidInput, match="got 1 elements, expected 2"):
        read(inputs=[tensor(shape=[2], datatype="BYTES", data=["AAAA"])])


def test_shared_memory_is_not_offered():
    with pytest.raises(Unsupported, match="shared memory"):
        read(inputs=[tensor(data=..., parameters={"shared_memory_region": "a"})])


def test_outputs_are_binary_where_the_request_says_so():
    assert read(parameters={"binary_data_output": True}).outputs == ALL_BINARY
    assert read(outputs=None).outputs == ALL
    assert read(outputs=[]).outputs == ALL
    wanted = [{"name": "logits", "parameters": {"binary_data": False}}, {"name": "probabilities"}]
    chosen = read(parameters={"binary_data_output": True}, outputs=wanted).outputs
    assert [(output.name, output.binary) for output in chosen] == [("logits", False), ("probabilities", True)]


def output(name: str, values: Any, is_binary: bool) -> OutputTensor:
    datatype = "BYTES" if isinstance(values, list) else "FP32"
    return OutputTensor(name, datatype, (1, 2), values, is_binary)


def test_case_e01_an_answer_mixes_json_and_bytes():
    numbers = np.array([[0.25, -1.5]], np.float32)
    outputs = [output("a", numbers, False), output("b", numbers, True), output("c", [b"x", b"yz"], False)]
    outputs.append(output("d", [b"x", b"y"], True))
    body, headers = write_response(InferenceResponse("m", "1", None, outputs))
    length = int(headers["inference-header-content-length"])
    described = json.loads(body[:length])["outputs"]
    assert headers["content-type"] == "application/octet-stream"
    assert [each.get("data") for each in described] == [[0.25, -1.5], None, ["x", "yz"], None]
    assert [each["parameters"]["binary_data_size"] for each in described[1::2]] == [8, 10]
    assert body[length:] == numbers.tobytes() + b"\1\0\0\0x\1\0\0\0y"


def test_an_answer_without_bytes_is_json():
    _, headers = write_response(InferenceResponse("m", "1", None, [output("a", [b"x", b"y"], False)]))
    assert headers == {"content-type": "application/json"}
