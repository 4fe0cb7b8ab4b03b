import asyncio
import base64
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from serving.errors import InvalidInput
from serving.http.pictures import read_items
from serving.http.predict import INLINE_ITEMS
from serving.limits import Limits
from serving.preparing import LATE
from tests.conftest import Digits
from tests.serving.http.app import App, png, tiny_digit


@pytest.fixture
def digit(test_digits: Digits) -> np.ndarray:
    """Return MNIST's first test digit, which passes the preprocessing unchanged."""
    return test_digits[0][0]


@pytest.fixture
def digits(test_digits: Digits) -> np.ndarray:
    return test_digits[0][:40]


async def post(app: App, **options: Any) -> httpx.Response:
    return await app.client.post("/predict", **options)


def found(answer: httpx.Response) -> list[Any]:
    assert answer.status_code == 200, answer.text
    return [prediction.get("digit", "error") for prediction in answer.json()["predictions"]]


async def test_a_raw_picture_is_read(app: App, digit: np.ndarray):
    answer = await post(app, content=png(digit))
    (prediction,) = answer.json()["predictions"]
    assert answer.json()["model"] == {"name": "tiny", "version": "2"}
    assert list(prediction) == ["digit", "confidence", "probabilities", "accepted", "reasons", "source"]
    assert (prediction["digit"], prediction["source"]) == (tiny_digit(digit), 0)
    assert prediction["confidence"] == max(prediction["probabilities"])


async def test_probabilities_are_probabilities(app: App, digits: np.ndarray):
    answer = await post(app, files=[("f", (f"{n}.png", png(digit))) for n, digit in enumerate(digits)])
    for prediction in answer.json()["predictions"]:
        probabilities = prediction["probabilities"]
        assert all(0 <= value <= 1 for value in probabilities)
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert int(np.argmax(probabilities)) == prediction["digit"]


@pytest.mark.parametrize(
    "declared",
    [
        *["image/png", "image/jpg", "image/pjpeg", "image/svg+xml", "image/gif", "text/plain", "application/json"],
        *["multipart/form-data; boundary=x", "none"],
    ],
)
async def test_the_bytes_decide_and_not_the_declared_type(app: App, digit: np.ndarray, declared: str):
    headers = {} if declared == "none" else {"content-type": declared}
    assert found(await post(app, content=png(digit), headers=headers)) == [tiny_digit(digit)]
    part = ("seven", png(digit)) if declared == "none" else ("seven", png(digit), declared)
    assert found(await post(app, files={"any": part})) == [tiny_digit(digit)]


async def test_a_form_may_hold_many_files_in_any_field(app: App, digits: np.ndarray):
    files = [(f"field{n % 3}", (f"{n}.png", png(digit))) for n, digit in enumerate(digits)]
    answer = await post(app, files=files)
    assert found(answer) == [tiny_digit(digit) for digit in digits]
    assert [prediction["source"] for prediction in answer.json()["predictions"]] == [f"{n}.png" for n in range(40)]


async def test_a_part_without_a_name_is_told_by_its_place(app: App, digit: np.ndarray):
    form = b"--x\r\n\r\n" + png(digit) + b"\r\n--x\r\n\r\n" + png(digit) + b"\r\n--x--\r\n"
    assert [each["source"] for each in (await post(app, content=form)).json()["predictions"]] == [0, 1]


async def test_json_holds_base64_or_data_urls(app: App, digit: np.ndarray):
    text = base64.b64encode(png(digit)).decode()
    for form in (text, f"data:image/png;base64,{text}", f"DATA:;charset=x;base64,{text}"):
        assert found(await post(app, json={"images": [form]})) == [tiny_digit(digit)]


async def test_json_needs_no_declared_type(app: App, digit: np.ndarray):
    body = json.dumps({"pixels": digit.tolist()})
    assert found(await post(app, content=body)) == [tiny_digit(digit)]


async def test_pixels_nested_flat_one_or_many_are_the_same(app: App, digits: np.ndarray):
    one, expected = digits[0], [tiny_digit(digit) for digit in digits]
    assert found(await post(app, json={"pixels": one.tolist()})) == expected[:1]
    assert found(await post(app, json={"pixels": one.ravel().tolist()})) == expected[:1]
    assert found(await post(app, json={"pixels": digits.tolist()})) == expected
    assert found(await post(app, json={"pixels": digits.reshape(-1, 784).tolist()})) == expected
    for shape in ((28, 28, 28), (28, 784)):
        assert found(await post(app, json={"pixels": digits[:28].reshape(shape).tolist()})) == expected[:28]


async def test_a_picture_and_its_pixels_get_the_same_probabilities(app: App, digit: np.ndarray):
    answers = [await post(app, content=png(digit)), await post(app, json={"pixels": digit.tolist()})]
    first, second = (answer.json()["predictions"][0]["probabilities"] for answer in answers)
    assert first == second


@pytest.mark.parametrize("body", [{"images": []}, {"pixels": []}])
async def test_no_pictures_give_no_predictions(app: App, body: dict[str, Any]):
    assert found(await post(app, json=body)) == []


async def test_a_blank_picture_has_no_digit(app: App):
    for body in (
        {"content": png(np.zeros((28, 28), np.uint8))},
        {"json": {"pixels": [0] * 784}},
        {"json": {"pixels": [255] * 784}},
    ):
        (prediction,) = (await post(app, **body)).json()["predictions"]
        assert (prediction["digit"], prediction["confidence"], prediction["accepted"]) == (None, None, False)
        assert prediction["reasons"] == ["blank"]


async def test_a_bad_picture_stands_in_its_place_and_its_neighbours_are_read(app: App, digits: np.ndarray):
    files = [("f", ("a.png", png(digits[0]))), ("f", ("b.png", b"no picture")), ("f", ("c.png", png(digits[1])))]
    answer = await post(app, files=files)
    assert found(answer) == [tiny_digit(digits[0]), "error", tiny_digit(digits[1])]
    bad = answer.json()["predictions"][1]
    assert list(bad) == ["error", "source"]
    assert bad["source"] == "b.png"


async def test_only_bad_pictures_are_422(app: App):
    answer = await post(app, files=[("f", ("a.png", b"no")), ("f", ("b.png", b"picture"))])
    assert answer.status_code == 422
    assert [prediction["source"] for prediction in answer.json()["predictions"]] == ["a.png", "b.png"]
    assert (await post(app, content=b"\x89PNG broken")).status_code == 422
    assert (await post(app, json={"images": ["%%%"]})).status_code == 422


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/x.png", "//host/x.png", "file:///etc/passwd", "http://[::1]:9", "HTTPS://0x7f000001"]
)
async def test_a_url_is_not_fetched(app: App, url: str):
    for body in ({"data": {"image": url}}, {"files": {"f": url.encode()}}, {"json": {"images": [url]}}):
        answer = await post(app, **body)
        assert answer.status_code == 422
    assert "URLs are not fetched" in (await post(app, json={"images": [url]})).text
    assert "URLs are not fetched" in (await post(app, files={"f": url.encode()})).text
    assert (await post(app, json={"image": url})).status_code == 400


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("{", "not JSON"),
        ("[]", 'expected {"images"'),
        ('{"instances": "a"}', 'expected {"images"'),
        ('{"images": "a"}', "images: expected a list"),
        ('{"images": [1]}', "images[0]: expected a base64 text, got int"),
        ('{"images": ["a", null]}', "images[1]: expected a base64 text, got NoneType"),
        ('{"images": [], "pixels": []}', 'expected {"images"'),
        ('{"pixels": 5}', "pixels: expected a list"),
        ('{"pixels": [[1, 2], [3]]}', "pixels, image 0: expected 28 rows"),
        ('{"pixels": [NaN]}', "not JSON"),
        ('{"pixels": [Infinity]}', "not JSON"),
        (json.dumps({"pixels": [0.5] * 784}), "expected integers from 0 (paper) to 255 (ink), got float"),
        (json.dumps({"pixels": [True] * 784}), "got bool"),
        (json.dumps({"pixels": ["1"] * 784}), "got str"),
        (json.dumps({"pixels": [256] + [0] * 783}), "expected integers from 0 to 255, got 0 to 256"),
        (json.dumps({"pixels": [-1] + [0] * 783}), "got -1 to 0"),
        (json.dumps({"pixels": [0] * 783}), "got 783 values"),
        (json.dumps({"pixels": [[0] * 28] * 27 + [[0] * 27]}), "image 0, row 27: expected 28 integers, got 27"),
        (json.dumps({"pixels": [[[0] * 28] * 28, [5] * 28]}), "image 1, row 0: expected 28 integers, got int"),
        (json.dumps({"pixels": [[[[0] * 3] * 28] * 28]}), "got list"),
        ('{"pixels": [1e400]}', "not JSON"),
        ("[" * 1_000_000, "nested too deeply"),
        ('{"a":' * 1000 + "1" + "}" * 1000, "nested too deeply"),
        ('{"images": [], "images": []}', "the key 'images' stands twice"),
        ("", "the body is empty"),
    ],
)
async def test_malformed_json_is_400_and_says_where(app: App, body: str, text: str):
    answer = await post(app, content=body)
    assert answer.status_code == 400
    assert text in answer.json()["error"]


@pytest.mark.parametrize("body", [b"null", b"true", '{"pixels": []}'.encode("utf-16")])
async def test_what_is_declared_as_json_but_is_no_object_is_400(app: App, body: bytes):
    answer = await post(app, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    "body",
    [b"--x\r\n", b"--x\r\nContent-Disposition: form-data\r\n\r\nabc", b"--x\r\nbad\x00header\r\n\r\n--x--\r\n"],
)
async def test_a_malformed_form_is_400(app: App, body: bytes):
    answer = await post(app, content=body, headers={"content-type": "multipart/form-data"})
    assert answer.status_code == 400
    assert "multipart" in answer.json()["error"]


async def test_a_form_needs_no_declared_boundary(app: App, digit: np.ndarray):
    body = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a.png"\r\n\r\n' + png(digit) + b"\r\n--b--\r\n"
    for declared in ("multipart/form-data", "text/plain", "multipart/form-data; boundary=other"):
        assert found(await post(app, content=body, headers={"content-type": declared})) == [tiny_digit(digit)]


async def test_a_form_may_have_a_preamble_white_space_behind_boundaries_and_folded_headers(app: App, digit: np.ndarray):
    disposition = b'Content-Disposition: form-data;\r\n\tname="f";\r\n filename="%s.png"\r\n\r\n'
    parts = [disposition % name + png(digit) + b"\r\n" for name in (b"a", b"b")]
    body = b"This is a form.\r\n--b \t\r\n" + parts[0] + b"--b\t\r\n" + parts[1] + b"--b-- \r\nend"
    answer = await post(app, content=body, headers={"content-type": "multipart/form-data; boundary=b"})
    assert found(answer) == [tiny_digit(digit)] * 2
    assert [prediction["source"] for prediction in answer.json()["predictions"]] == ["a.png", "b.png"]


async def test_another_model_and_version_can_be_chosen(app: App, digit: np.ndarray):
    for query, model in (
        ({"model": "other"}, {"name": "other", "version": "1"}),
        ({"model": "tiny", "version": "1"}, {"name": "tiny", "version": "1"}),
        ({"version": "1"}, {"name": "tiny", "version": "1"}),
    ):
        assert (await post(app, content=png(digit), params=query)).json()["model"] == model
    for query in ({"model": "none"}, {"version": "9"}):
        answer = await post(app, content=png(digit), params=query)
        assert answer.status_code == 404
        assert "there are" in answer.json()["error"]


@pytest.mark.parametrize("query", [{"modle": "other"}, {"include": "everything"}])
async def test_an_unknown_parameter_is_refused(app: App, digit: np.ndarray, query: dict[str, str]):
    assert (await post(app, content=png(digit), params=query)).status_code == 400


async def test_a_query_longer_than_its_parameters_can_make_it_is_refused_unread(app: App, digit: np.ndarray):
    for query in ("a&" * 1025, "model=" + "x" * 2043):
        answer = await app.client.post(f"/predict?{query}", content=png(digit))
        assert answer.status_code == 400
        assert answer.json() == {"error": "the query is longer than 2048 characters"}
    assert (await app.client.post(f"/predict?model={'x' * 2042}", content=png(digit))).status_code == 404


async def test_the_input_of_the_model_can_be_seen(app: App, digit: np.ndarray):
    answer = await post(app, content=png(255 - digit), params={"include": "input"})
    shown = answer.json()["predictions"][0]["input"]
    picture = base64.b64decode(shown["image"].removeprefix("data:image/png;base64,"))
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_GRAYSCALE), digit)
    assert shown["polarity"] == "dark_on_light"
    assert len(shown["box"]) == 4


async def test_a_large_picture_is_read_in_a_thread(app: App, digit: np.ndarray):
    large = cv2.resize(255 - digit, (640, 640), interpolation=cv2.INTER_CUBIC)
    assert len(png(large)) > 1024
    (prediction,) = (await post(app, content=png(large))).json()["predictions"]
    assert prediction["digit"] in range(10)


async def test_more_pictures_than_allowed_are_413(models: Path, executor: ThreadPoolExecutor, digit: np.ndarray):
    app = App(models, executor, max_images=2)
    await app.catalogue.start()
    too_many: list[dict[str, Any]] = [
        {"files": [("f", png(digit))] * 3},
        {"json": {"images": [""] * 3}},
        {"json": {"pixels": [[0] * 784] * 3}},
    ]
    for body in too_many:
        assert (await post(app, **body)).status_code == 413
    assert app.value("rejected_total", reason="too_large") == 3
    text = base64.b64encode(png(digit)).decode()
    for body in ({"images": [text] * 2}, {"pixels": [digit.tolist()] * 2}):
        assert found(await post(app, json=body)) == [tiny_digit(digit)] * 2


async def inferences(app: App, result: str) -> float:
    labels = {"model": "tiny", "version": "2", "result": result}
    return app.value("inference_duration_seconds_count", **labels) or 0.0


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        ({"content": b"no picture"}, 422, "unreadable"),
        ({"files": [("f", b"no"), ("f", b"picture")]}, 422, "unreadable"),
        ({"content": png(np.zeros((64, 64), np.uint8))}, 413, "too_large"),
    ],
)
async def test_a_request_of_only_bad_pictures_counts_once_as_refused_and_not_as_an_inference(
    models: Path, executor: ThreadPoolExecutor, content: dict[str, Any], status: int, reason: str
):
    app = App(models, executor, max_pixels=1000)
    await app.catalogue.start()
    assert (await post(app, **content)).status_code == status
    assert (await inferences(app, "success"), await inferences(app, "failure")) == (0, 0)
    assert app.value("rejected_total", reason=reason) == 1


async def test_a_request_with_one_readable_picture_is_an_inference_and_not_refused(app: App, digit: np.ndarray):
    blank = png(np.zeros((28, 28), np.uint8))
    for answered, readable in enumerate((png(digit), blank), 1):
        assert (await post(app, files=[("f", readable), ("f", b"no picture")])).status_code == 200
        assert await inferences(app, "success") == answered
    assert app.value("rejected_total", reason="unreadable") == 0


async def test_thirty_thousand_parts_are_refused_at_the_limit(app: App):
    body = (
        b"".join(b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' for _ in range(30_000)) + b"--x--\r\n"
    )
    assert (await post(app, content=body)).status_code == 413


@pytest.mark.parametrize("header", ["X-A: " + "a" * 5000, "\r\n".join(["X-A: a"] * 9)])
async def test_a_part_with_long_or_many_headers_is_refused(app: App, header: str):
    body = f'--x\r\nContent-Disposition: form-data; name="a"\r\n{header}\r\n\r\na\r\n--x--\r\n'
    answer = await post(app, content=body)
    assert (answer.status_code, answer.json()["error"][:30]) == (400, "the multipart body is malforme")


async def test_a_body_of_too_many_values_is_413_in_a_form_that_says_so(app: App):
    answer = await post(app, content=b'{"pixels": [' + b"[]," * 500_000 + b"[]]}")
    assert (answer.status_code, answer.json()) == (
        413,
        {"error": "the body holds more JSON values than the limit of 3000000"},
    )


async def test_a_picture_over_the_pixel_limit_is_413_when_alone(models: Path, executor: ThreadPoolExecutor):
    app = App(models, executor, max_pixels=1000)
    await app.catalogue.start()
    large = png(np.zeros((64, 64), np.uint8))
    assert (await post(app, content=large)).status_code == 413
    for contents, status in (([large, b"no picture"], 413), ([b"no picture", large], 422)):
        files = [("f", ("a.png", content)) for content in contents]
        assert (await post(app, files=files)).status_code == status


async def test_packed_bodies_are_415(app: App):
    assert (await post(app, content=b"x", headers={"content-encoding": "gzip"})).status_code == 415
    for plain in ("identity", "Identity", ""):
        assert (
            await post(app, content=png(np.zeros((28, 28), np.uint8)), headers={"content-encoding": plain})
        ).status_code == 200


def answered(app: App, status: int) -> float | None:
    labels = {"protocol": "http", "method": "POST", "route": "/predict", "model": "tiny"}
    return app.value("requests_total", status=str(status), **labels)


async def test_a_full_queue_is_429_with_a_time_to_come_again(models: Path, executor: ThreadPoolExecutor):
    app = App(models, executor, queue_size=2, max_images=2)
    await app.catalogue.start()
    app.catalogue.get().batcher._busy = True
    body = {"json": {"pixels": [[1] + [0] * 783] * 2}}
    waiting = asyncio.ensure_future(post(app, **body))
    while app.catalogue.get().batcher.waiting_images < 2:
        await asyncio.sleep(0)
    answer = await post(app, **body)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert app.value("rejected_total", reason="queue_full") == answered(app, 429) == 1
    waiting.cancel()


async def test_a_request_that_takes_too_long_is_504(models: Path, executor: ThreadPoolExecutor):
    app = App(models, executor, request_timeout_s=0.01)
    await app.catalogue.start()
    app.catalogue.get().batcher._busy = True
    answer = await post(app, json={"pixels": [1] + [0] * 783})
    assert answer.status_code == 504
    assert app.value("rejected_total", reason="deadline") == answered(app, 504) == 1


async def test_a_picture_that_takes_too_long_to_prepare_is_504(models: Path, executor: ThreadPoolExecutor):
    app = App(models, executor, request_timeout_s=0.01)
    await app.catalogue.start()
    noise = np.random.default_rng(0).integers(0, 256, (60, 60), np.uint8)  # above what is prepared at once
    leave = threading.Event()
    with ThreadPoolExecutor(1) as busy:
        app.preparer._executor = busy
        busy.submit(leave.wait, 5)
        answer = await post(app, content=png(noise))
        leave.set()
    assert (answer.status_code, answer.json()["error"]) == (504, LATE)


async def test_a_model_that_fails_is_500_with_a_general_text(app: App, monkeypatch: pytest.MonkeyPatch):
    def fail(_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(app.catalogue.get().batcher, "_run", fail)
    answer = await post(app, json={"pixels": [1] + [0] * 783})
    assert (answer.status_code, answer.json()) == (500, {"error": "the model failed; the log says why"})
    assert answered(app, 500) == 1


async def test_before_the_models_are_loaded_it_is_503(models: Path, executor: ThreadPoolExecutor):
    answer = await post(App(models, executor), content=b"x")
    assert (answer.status_code, answer.json()) == (503, {"error": "the models are being loaded"})


async def test_bad_requests_do_not_touch_their_neighbours(app: App, digits: np.ndarray):
    good = [post(app, content=png(digit)) for digit in digits[:32]]
    bad = [post(app, content=b"\x13" * 20), post(app, json={"pixels": [[[0.5] * 28] * 27]}), post(app, content="{NaN}")]
    answers = await asyncio.gather(*good, *bad)
    assert [found(answer)[0] for answer in answers[:32]] == [tiny_digit(digit) for digit in digits[:32]]
    assert [answer.status_code for answer in answers[32:]] == [422, 400, 400]


async def test_an_answer_that_is_made_beside_the_event_loop_is_the_same(app: App, test_digits: Digits):
    many = test_digits[0][: INLINE_ITEMS + 9]
    assert found(await post(app, json={"pixels": many.tolist()})) == [tiny_digit(digit) for digit in many]


def test_a_body_of_blanks_takes_no_longer_than_to_look_at_each_a_few_times():
    blanks = b" " * 8_000_000
    limits = Limits(1, 32, 1000, 1000)

    def least_s(work: Callable[[], object]) -> float:
        times = []
        for _ in range(5):
            started = time.thread_time()
            work()
            times.append(time.thread_time() - started)
        return min(times)

    def read() -> None:
        with pytest.raises(InvalidInput, match="the body is empty"):
            read_items(blanks, "", limits)

    assert read_items(blanks + b'{"images": []}', "", limits) == []
    # 3 times, and with a regular expression 35.
    assert least_s(read) < 15 * least_s(blanks.isspace)
