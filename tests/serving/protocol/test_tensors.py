import struct

import numpy as np
import pytest

from serving.errors import InvalidInput, TooLarge
from serving.protocol import tensors
from serving.protocol.messages import OutputTensor, TensorHeader
from serving.protocol.tensors import check_header, raw_bytes, read_list, read_raw

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
FLOATS = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64}


def header(datatype: str = "UINT8", shape: tuple[int, ...] = (3, 28, 28), name: str = "images") -> TensorHeader:
    return TensorHeader(name, datatype, shape)


@pytest.mark.parametrize("shape", [(3, 28, 28), (4, 28, 28), (3, 1, 28, 28), (0, 28, 28), (0, 1, 28, 28)])
@pytest.mark.parametrize("datatype", ["UINT8", *FLOATS])
def test_images_with_and_without_a_channel_are_accepted(datatype: str, shape: tuple[int, ...]):
    check_header(header(datatype, shape), 4)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (header(name="x"), "input 'x'.*'images'"),
        (header("INT32"), "'INT32', expected UINT8"),
        (header("BF16"), "'BF16', expected UINT8"),
        (header(shape=(28, 28)), r"\[28, 28\], expected"),
        (header(shape=(1, 28, 28, 1)), r"\[1, 28, 28, 1\]"),
        (header(shape=(1, 1, 28, 27)), r"\[1, 1, 28, 27\]"),
        (header(shape=(-1, 28, 28)), r"\[-1, 28, 28\]"),
        (header(shape=()), r"\[\]"),
        (header("BYTES", (1, 28, 28)), "BYTES of shape"),
        (header("BYTES", (-1,)), r"\[-1\]"),
    ],
)
def test_case_c08_another_name_datatype_or_shape_is_refused_with_what_is_accepted(wrong: TensorHeader, said: str):
    with pytest.raises(InvalidInput, match=said):
        check_header(wrong, 4)


def test_raw_uint8_is_taken_as_it_is():
    images = read_raw(header(), IMAGES.tobytes())
    assert np.array_equal(images, IMAGES)


@pytest.mark.parametrize("datatype", FLOATS)
@pytest.mark.parametrize("shape", [(3, 28, 28), (3, 1, 28, 28)])
def test_case_e06_intensities_of_every_width_give_the_same_pixels(datatype: str, shape: tuple[int, ...]):
    intensities = (IMAGES / 255).astype(FLOATS[datatype])
    assert np.array_equal(read_raw(header(datatype, shape), intensities.tobytes()), IMAGES)


def test_every_pixel_survives_the_way_through_floats():
    pixels = np.resize(np.arange(256, dtype=np.uint8), (1, 28, 28))
    for datatype, dtype in FLOATS.items():
        raw = (pixels / 255).astype(dtype).tobytes()
        assert np.array_equal(read_raw(header(datatype, (1, 28, 28)), raw), pixels)


def test_an_intensity_of_half_the_width_is_rounded_once():
    halves = np.resize(np.arange(0x3C01, dtype=np.uint16).view(np.float16), (20, 28, 28))
    wide = read_raw(header("FP64", halves.shape), halves.astype(np.float64).tobytes())
    assert np.array_equal(read_raw(header("FP16", halves.shape), halves.tobytes()), wide)


@pytest.mark.parametrize("value", [-0.01, 1.01, 255.0, np.nan, np.inf, -np.inf])
def test_a_float_that_is_no_intensity_is_refused(value: float):
    values = np.zeros((1, 28, 28), np.float32)
    values[0, 3, 4] = value
    with pytest.raises(InvalidInput, match="normalisation by mean and standard deviation is the model's business"):
        read_raw(header("FP32", (1, 28, 28)), values.tobytes())


@pytest.mark.parametrize("size", [0, 3 * 784 - 1, 3 * 784 + 1])
def test_case_e02_a_size_that_is_not_shape_times_datatype_is_refused(size: int):
    with pytest.raises(InvalidInput, match=rf"got {size} bytes, expected 2352 for UINT8 \[3, 28, 28\]"):
        read_raw(header(), bytes(size))


@pytest.mark.parametrize("shape", [(5, 28, 28), (2**62, 28, 28), (2**31, 2**31), (2**63, 1, 28, 28), (5,)])
def test_more_images_than_allowed_or_a_shape_beyond_all_bounds_is_refused_by_the_header_alone(shape: tuple[int, ...]):
    kind = InvalidInput if shape == (2**31, 2**31) else TooLarge
    with pytest.raises(kind, match=r"the limit is 4|expected UINT8"):
        check_header(header("BYTES" if len(shape) == 1 else "FP64", shape), 4)


def test_elements_beyond_their_number_are_not_gathered():
    with pytest.raises(InvalidInput, match="got more than 2 elements, expected 2 for BYTES"):
        read_raw(header("BYTES", (2,)), bytes(4 * 1_000_000))


def elements(*parts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def test_case_e07_elements_are_split_by_their_lengths():
    assert read_raw(header("BYTES", (3,)), elements(b"one", b"", b"three")) == [b"one", b"", b"three"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (elements(b"one") + b"\x01\x00", "element 1 has no length"),
        (elements(b"one") + struct.pack("<I", 2**32 - 1) + b"abc", "element 1 should have 4294967295 bytes, 3 are"),
        (b"\x89PNG\r\n\x1a\n", "element 0 should have"),
        (elements(b"one"), "got 1 elements, expected 2"),
        (elements(b"1", b"2", b"3"), "got more than 2 elements, expected 2"),
    ],
)
def test_case_e07_a_wrong_length_is_refused_and_nothing_is_read_beyond(data: bytes, said: str):
    with pytest.raises(InvalidInput, match=said):
        read_raw(header("BYTES", (2,)), data)


@pytest.mark.parametrize("shape", [(3, 28, 28), (3, 1, 28, 28)])
@pytest.mark.parametrize("datatype", ["UINT8", "FP32", "FP64"])
def test_case_e11_flat_and_nested_lists_are_the_same(datatype: str, shape: tuple[int, ...]):
    values = IMAGES if datatype == "UINT8" else IMAGES / 255
    for data in (values.ravel().tolist(), values.reshape(shape).tolist()):
        for only_numbers in (True, False):
            images = read_list(header(datatype, shape), data, only_numbers=only_numbers)
            assert images.dtype == np.uint8
            assert np.array_equal(images, IMAGES)


@pytest.mark.parametrize("only_numbers", [True, False])
@pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
def test_a_long_list_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch, datatype: str, only_numbers: bool):
    monkeypatch.setattr(tensors, "PIECE_VALUES", 1000)
    data = IMAGES.ravel().tolist() if datatype == "UINT8" else (IMAGES.ravel() / 255).tolist()
    assert np.array_equal(read_list(header(datatype), data, only_numbers=only_numbers), IMAGES)
    with pytest.raises(InvalidInput, match="takes" if only_numbers else "value 2351 is a list"):
        read_list(header(datatype), [*data[:-1], [1]], only_numbers=only_numbers)


def test_case_c10_no_image_is_an_empty_batch():
    assert read_list(header(shape=(0, 28, 28)), [], only_numbers=True).shape == (0, 28, 28)
    assert read_list(header("FP32", (0, 1, 28, 28)), [], only_numbers=True).shape == (0, 28, 28)


@pytest.mark.parametrize(
    "data",
    [
        IMAGES[0].tolist(),  # one level is missing
        [IMAGES.tolist()],
        IMAGES[:2].tolist(),
        [[[0] * 27] * 28] * 3,
        [[[0] * 28] * 27 + [[0]]] * 3,
        [[[0] * 28] * 28, [[0] * 28] * 28, 5],
        [[[0] * 28] * 27 + ["0" * 28]] * 3,
    ],
)
def test_case_e11_nesting_unlike_the_shape_is_refused(data: list[object]):
    with pytest.raises(InvalidInput, match="not nested as the shape"):
        read_list(header(), data, only_numbers=False)


def test_case_e02_the_number_of_values_is_told():
    with pytest.raises(InvalidInput, match="got 783 values, expected 784"):
        read_list(header(shape=(1, 28, 28)), [0] * 783, only_numbers=True)


@pytest.mark.parametrize("value", [-1, 256, 1.5, 1.0, 1e19, [1]])
def test_a_value_that_is_no_pixel_is_refused(value: object):
    with pytest.raises(InvalidInput, match="UINT8 takes whole numbers from 0 to 255"):
        read_list(header(shape=(1, 28, 28)), [0] * 783 + [value], only_numbers=True)


def test_a_list_among_floats_is_refused():
    with pytest.raises(InvalidInput, match="FP32 takes numbers"):
        read_list(header("FP32", (1, 28, 28)), [0.5] * 783 + [[0.5]], only_numbers=True)


@pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
@pytest.mark.parametrize(
    ("value", "kind"), [(True, "a boolean"), ("1", "a string"), (None, "null"), ({}, "a dict"), ([], "a list")]
)
def test_case_d08_what_is_no_number_is_refused_by_its_place(datatype: str, value: object, kind: str):
    with pytest.raises(InvalidInput, match=f"value 700 is {kind}, expected a number"):
        read_list(header(datatype, (1, 28, 28)), [0] * 700 + [value] + [0] * 83, only_numbers=False)


def test_outputs_are_little_endian_and_elements_follow_their_length():
    numbers = OutputTensor("logits", "FP32", (1, 2), np.array([[1.0, -2.0]], np.float32), True)
    assert raw_bytes(numbers) == struct.pack("<2f", 1.0, -2.0)
    classes = OutputTensor("logits", "BYTES", (1, 2), [b"ab", b""], True)
    assert raw_bytes(classes) == elements(b"ab", b"")
