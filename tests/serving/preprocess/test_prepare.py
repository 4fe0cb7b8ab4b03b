import time
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import ServingError
from serving.preprocess import Prepared, prepare
from serving.preprocess.decode import decode
from serving.preprocess.ink import find_ink
from serving.preprocess.mnist_form import recognise
from tests.pictures import KINDS, encode, letter, picture_of, png, texture, thin_line
from tests.serving.preprocess.conftest import Classify, Read


def test_mnist_passes_unchanged_and_inverted(test_digits: Any) -> None:
    for digit in test_digits[0]:
        raw, negative = recognise(digit), recognise(255 - digit)
        assert raw is not None
        assert negative is not None
        assert (raw[1], negative[1]) == (False, True)
        assert (raw[0] == digit).all()
        assert (negative[0] == digit).all()


def test_what_is_not_quite_in_mnist_s_form_is_drawn_anew(seven: Any, read_all: Read) -> None:
    def changed(scale: float, x: float, y: float) -> Any:
        turn = cv2.getRotationMatrix2D((13.5, 13.5), 0, scale)
        turn[:, 2] += x, y
        return cv2.warpAffine(seven, turn, (28, 28), flags=cv2.INTER_NEAREST)

    assert (changed(1, 0, 0) == seven).all()
    assert recognise(seven[:27]) is recognise(seven[:, :27]) is None
    # Off the middle, both ways; too small, too large; pale.
    others = [changed(1, 0, -2), changed(1, 2, 0), changed(0.8, 0, 0), changed(1.2, -0.3, 0), seven // 2]
    for other in others:
        assert recognise(other) is recognise(255 - other) is None
    assert read_all([png(other) for other in others]) == [7] * 5


def test_an_mnist_digit_keeps_its_pixels_as_a_file(test_digits: Any) -> None:
    for digit in test_digits[0][:200]:
        for form in (digit, np.dstack([digit] * 3), np.dstack([digit] * 3 + [np.full_like(digit, 255)])):
            assert (prepare(png(form)).image == digit).all()
        negative = prepare(encode(255 - digit, "BMP"))
        assert (negative.image == digit).all()
        left, top, width, height = cv2.boundingRect(digit)
        assert (negative.polarity, negative.size) == ("dark_on_light", (28, 28))
        assert negative.box == (left, top, left + width, top + height)


def test_the_answer_says_where_the_ink_is_and_its_polarity(seven: Any) -> None:
    page = np.full((300, 500), 230, np.uint8)
    page[100:200, 300:380] = np.minimum(230, 255 - cv2.resize(seven[4:24, 6:22], (80, 100)))
    prepared = prepare(png(page))
    assert prepared.polarity == "dark_on_light"
    assert prepared.size == (500, 300)
    assert not prepared.blank
    assert prepared.box is not None
    left, top, right, bottom = prepared.box
    assert (left, top, right, bottom) == pytest.approx((300, 115, 380, 200), abs=4)
    assert prepare(png(255 - page)).polarity == "light_on_dark"
    # A large JPEG is decoded smaller, and its box is told in its own pixels.
    large = prepare(encode(cv2.resize(page, (2000, 1200)), "JPEG"))
    assert large.size == (2000, 1200)
    assert large.box == pytest.approx((1200, 460, 1520, 800), abs=16)


def test_the_drawing_has_the_form_of_mnist(test_digits: Any) -> None:
    for seed, digit in enumerate(test_digits[0][:50]):
        image = prepare(picture_of("photo", digit, seed)).image
        moments = cv2.moments(image)
        _, _, width, height = cv2.boundingRect(image)
        assert image.shape == (28, 28)
        assert image.dtype == np.uint8
        assert 19 <= max(width, height) <= 20
        assert 13.3 < moments["m10"] / moments["m00"] < 14.7
        assert 13.3 < moments["m01"] / moments["m00"] < 14.7


@pytest.mark.parametrize("kind", KINDS)
def test_both_polarities_give_the_same_drawing(kind: str, test_digits: Any) -> None:
    same = 0
    for seed, digit in enumerate(test_digits[0][:40]):
        grey = decode(picture_of(kind, digit, seed), 1_000_000).grey
        one, other = prepare(encode(grey, "BMP")), prepare(encode(255 - grey, "BMP"))
        same += bool((one.image == other.image).all() and one.polarity != other.polarity)
    assert same >= 39


@pytest.fixture(scope="module", params=KINDS)
def two_hundred(request: pytest.FixtureRequest, test_digits: Any) -> list[Prepared]:
    """Return the first 200 test digits, as pictures of each kind and prepared."""
    return [prepare(picture_of(request.param, digit, seed)) for seed, digit in enumerate(test_digits[0][:200])]


def test_a_digit_survives_every_kind_of_picture(
    two_hundred: list[Prepared], test_digits: Any, classify: Classify
) -> None:
    found = classify([each.image for each in two_hundred])
    assert sum(digit == label for digit, label in zip(found, test_digits[1][:200].tolist(), strict=True)) >= 194


def test_hardly_a_real_digit_is_refused_by_its_form(two_hundred: list[Prepared]) -> None:
    refused = [seed for seed, each in enumerate(two_hundred[:150]) if each.reasons]
    assert len(refused) <= 1


def test_dark_grey_on_light_grey_at_the_edge_is_read(test_digits: Any, read_all: Read) -> None:
    images, labels = test_digits
    files = []
    for digit in images[:60]:
        strokes = cv2.resize(digit, (90, 140), interpolation=cv2.INTER_CUBIC) / 255
        page = np.full((200, 120), 210.0)
        page[30:170, 30:] += (60 - 210) * strokes
        files.append(png(page.astype(np.uint8)))
    right = sum(found == label for found, label in zip(read_all(files), labels[:60].tolist(), strict=True))
    assert right >= 56


def test_a_small_picture_is_read(test_digits: Any, read_all: Read) -> None:
    images, labels = test_digits
    files = [png(cv2.resize(255 - digit, (16, 16), interpolation=cv2.INTER_AREA)) for digit in images[:60]]
    right = sum(found == label for found, label in zip(read_all(files), labels[:60].tolist(), strict=True))
    assert right >= 55


@pytest.mark.parametrize(("side", "pen", "least"), [(28, 5, 50), (64, 14, 52), (280, 20, 57)])
def test_a_broad_pen_on_a_small_canvas_is_read(
    side: int, pen: int, least: int, test_digits: Any, read_all: Read
) -> None:
    images, labels = test_digits
    files = []
    for seed, digit in enumerate(images[:60]):
        line = thin_line(digit, round(0.7 * side), pen, np.random.default_rng(seed))
        left, top, width, height = cv2.boundingRect(line)
        canvas = np.full((side, side), 255, np.uint8)
        y, x = (side - height) // 2, (side - width) // 2
        canvas[y : y + height, x : x + width] -= line[top : top + height, left : left + width]
        files.append(png(canvas))
    right = sum(found == label for found, label in zip(read_all(files), labels[:60].tolist(), strict=True))
    assert right >= least


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 2), (5, 5), (3, 900), (900, 3)])
def test_tiny_and_narrow_pictures_have_an_answer(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for pixels in (np.full(size, 255), np.zeros(size), rng.integers(0, 256, size)):
        assert prepare(png(pixels.astype(np.uint8))).image.shape == (28, 28)


def _noise(level: int, sigma: float) -> Any:
    return np.clip(np.random.default_rng(1).normal(level, sigma, (300, 300)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((28, 28), np.uint8),
        np.full((28, 28), 255, np.uint8),
        np.zeros((512, 512, 4), np.uint8),
        np.full((64, 64, 4), (255, 255, 255, 0), np.uint8),
        _noise(127, 1),
        _noise(200, 15),
    ],
)
def test_white_black_transparent_and_noise_are_blank(pixels: Any) -> None:
    prepared = prepare(png(pixels))
    assert prepared.blank
    assert prepared.reasons == ("blank",)
    assert prepared.box is None
    assert not prepared.image.any()


@pytest.mark.parametrize("level", [0, 60, 128, 204, 254])
@pytest.mark.parametrize("side", [28, 60, 200])
def test_a_page_of_two_neighbouring_levels_is_blank(side: int, level: int) -> None:
    for seed in range(3):
        pixels = level + np.random.default_rng(seed).integers(0, 2, (side, side))
        assert prepare(png(pixels.astype(np.uint8))).reasons == ("blank",)


def test_four_digits_in_a_row_are_several(test_digits: Any) -> None:
    images = test_digits[0]
    found = []
    for start in range(0, 80, 4):
        row = np.hstack([cv2.resize(digit, (84, 84)) for digit in images[start : start + 4]])
        found.append("several_digits" in prepare(png(255 - row)).reasons)
    assert sum(found) >= 18


@pytest.mark.parametrize("size", [120, 240])
def test_a_page_of_200_digits_holds_several(size: int, test_digits: Any) -> None:
    page = np.full((7000, 5000), 245, np.uint8)
    for place, digit in enumerate(test_digits[0][:200]):
        top, left = 350 * (place // 10) + 50, 500 * (place % 10) + 120
        page[top : top + size, left : left + size] -= cv2.resize(digit, (size, size)) // 2
    assert prepare(encode(page, "JPEG")).reasons == ("several_digits",)


def test_two_strokes_of_one_digit_stay_together() -> None:
    page = np.full((200, 200), 255, np.uint8)
    cv2.polylines(page, [np.array([[60, 70], [60, 100], [110, 110], [110, 160], [60, 165]])], False, 0, 8)
    cv2.line(page, (70, 55), (125, 50), 0, 8)
    prepared = prepare(png(page))
    assert prepared.reasons == ()
    assert prepared.box is not None
    assert prepared.box[1] < 55
    assert prepared.box[3] > 160


def test_a_dark_frame_a_ruled_line_and_specks_are_no_ink(seven: Any) -> None:
    page = np.full((300, 240), 240, np.uint8)
    page[60:220, 40:200] = np.minimum(240, 255 - cv2.resize(seven, (160, 160)))
    plain = prepare(png(page))
    page[:, :9] = 20
    page[-12:] = 20
    page[240:242] = 90
    page[20, 30] = page[200, 220] = 30
    assert np.abs(prepare(png(page)).image.astype(int) - plain.image.astype(int)).mean() < 3
    assert prepare(png(page)).reasons == ()


def test_a_digit_cut_out_to_the_last_pixel_is_read(test_digits: Any, read_all: Read) -> None:
    images, labels = test_digits
    files = []
    for digit in images[:100]:
        strokes = cv2.resize(digit, (140, 140), interpolation=cv2.INTER_CUBIC)
        left, top, width, height = cv2.boundingRect(np.where(strokes > 128, 255, 0).astype(np.uint8))
        files.append(png(255 - strokes[top : top + height, left : left + width]))
    right = sum(found == label for found, label in zip(read_all(files), labels[:100].tolist(), strict=True))
    assert right >= 94


def test_a_solid_shape_too_broad_for_a_stroke_is_found_all_the_same() -> None:
    page = np.full((100, 100), 250, np.uint8)
    page[20:80, 20:80] = 10
    assert prepare(png(page)).reasons == ("not_a_digit",)
    assert find_ink(page).strokes.box is not None


def test_textures_are_refused_and_letters_reach_the_model() -> None:
    passed = [seed for seed in range(160) if not prepare(texture(seed)).reasons]
    assert len(passed) <= 24
    assert sum(not prepare(letter(seed)).reasons for seed in range(40)) >= 20


def answers(data: bytes) -> bool:
    """Whether the bytes give an answer or an error of the service within a second of CPU; anything else escapes."""
    start = time.thread_time()
    try:
        prepared = prepare(data, max_pixels=1_000_000)
        good = prepared.image.shape == (28, 28) and prepared.blank == (prepared.box is None)
    except ServingError as error:
        good = bool(str(error))
    return good and time.thread_time() - start < 1


MAGICS = [
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"RIFF\0\1\0\0WEBPVP8 ",
]


@settings(max_examples=150)
@given(st.sampled_from([b"", *MAGICS]), st.binary(max_size=400))
def test_any_bytes_have_an_answer_or_a_typed_error(magic: bytes, rest: bytes) -> None:
    assert answers(magic + rest)


@settings(max_examples=250)
@given(
    st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]),
    st.lists(st.tuples(st.integers(0, 900), st.integers(0, 255)), min_size=1, max_size=8),
    st.integers(0, 900),
)
def test_a_damaged_picture_has_an_answer_or_a_typed_error(form: str, changes: list[Any], cut: int) -> None:
    page = np.full((40, 40), 255, np.uint8)
    cv2.line(page, (20, 5), (18, 35), 0, 3)
    data = bytearray(encode(page, form))
    for place, value in changes:
        data[place % len(data)] = value
    assert answers(bytes(data if cut < 500 else data[: cut % len(data)]))


@settings(max_examples=100)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1), st.integers(2, 255))
def test_any_pixels_have_an_answer(width: int, height: int, seed: int, tones: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, tones, (height, width)).astype(np.uint8)
    assert answers(png(pixels))
