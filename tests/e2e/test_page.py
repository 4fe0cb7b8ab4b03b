"""The page in a real browser, before the real service."""

import base64
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest

from tests.e2e.browser import PICTURES, Browser, Sheet, encode, expect, open_browser, paper, violations
from tests.e2e.server import ROOT, Server
from tests.serving.layered_model import expected_layers, weights, write_layered_model

pytestmark = pytest.mark.browser

MAX_BODY_BYTES = 1_000_000
DEFAULT = "mnist-cnn"

# What the page writes is rounded to three decimals.
ROUNDED = 1.5e-3

# How the page writes a minus, and that there is no digit.
MINUS, NO_DIGIT = "\u2212", "\u2013"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("page") / "models"
    shutil.copytree(ROOT / "models", models)
    write_layered_model(models)
    limit = str(MAX_BODY_BYTES)
    made = Server(tmp_path_factory.mktemp("server"), models, MNIST_MAX_BODY_BYTES=limit, MNIST_DEFAULT_MODEL=DEFAULT)
    try:
        yield made.wait_ready()
    finally:
        made.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def open_sheet(browser: Browser, server: Server) -> Iterator[Callable[..., Sheet]]:
    """Return a function that opens the page in a fresh profile; at the end nobody may have complained."""
    sheets: list[Sheet] = []

    def open_one(width: int = 1280, height: int = 900, scheme: str = "light", **options: object) -> Sheet:
        profile = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **options)
        sheets.append(Sheet(profile.new_page(), server.url))
        return sheets[-1]

    yield open_one
    for sheet in sheets:
        sheet.page.context.close()
    assert [problem for sheet in sheets for problem in sheet.problems] == []


@pytest.fixture
def sheet(open_sheet: Callable[..., Sheet]) -> Sheet:
    return open_sheet().open()


def number(text: str | None) -> float:
    """Return the last number of a text."""
    return float(re.findall(r"-?\d+\.\d+", (text or "").replace(MINUS, "-"))[-1])


def settle_on(sheet: Sheet, look: Callable[[], object], expected: object, seconds: int, what: str = "") -> None:
    """Look until what is found is what is expected, or the time is over."""
    for _ in range(10 * seconds):
        if look() == expected:
            return
        sheet.page.wait_for_timeout(100)
    assert look() == expected, what


def test_a_seven_drawn_by_mouse_is_read(sheet: Sheet):
    sheet.draw()
    sheet.expect_digit("7")
    card = sheet.card(DEFAULT)
    expect(card.locator(".accepted")).to_have_text("Accepted")
    expect(card.locator(".bars li")).to_have_count(10)
    expect(card.locator(".bars .best")).to_contain_text("7")
    expect(card.locator(".time")).to_have_text(re.compile(r"Answered in [\d.]+ ms"))
    expect(sheet.page.locator("#seen-text")).to_contain_text("dark ink on a light ground")
    expect(sheet.page.locator("#spoken")).to_contain_text(f"{DEFAULT} reads 7")
    assert sheet.seen().max() > 200
    sheet.screenshot("drawn-light")


def test_the_box_lies_around_the_ink(sheet: Sheet):
    sheet.draw()
    expect(sheet.page.locator("#ink-box")).to_be_visible()
    pad = sheet.page.locator("#pad").bounding_box()
    assert pad is not None

    def edges() -> tuple[float, float]:
        box = sheet.page.locator("#ink-box").bounding_box()
        assert box is not None
        return (box["x"] - pad["x"]) / pad["width"], (box["y"] + box["height"] - pad["y"]) / pad["height"]

    expected = pytest.approx((0.28 - 0.033, 0.85 + 0.033), abs=0.02)
    # The answers that came while the line was drawn placed the box around a part of it.
    settle_on(sheet, edges, expected, seconds=30)


def test_the_answer_comes_while_one_draws(sheet: Sheet):
    pad = sheet.page.locator("#pad").bounding_box()
    assert pad is not None
    sheet.page.mouse.move(pad["x"] + 200, pad["y"] + 60)
    sheet.page.mouse.down()
    sheet.page.mouse.move(pad["x"] + 200, pad["y"] + 330, steps=10)
    sheet.expect_digit("1")  # the button is still down
    sheet.page.mouse.up()


def test_undo_and_clear(sheet: Sheet):
    undo, clear = (sheet.page.locator(f"#{name}") for name in ("undo", "clear"))
    expect(undo).to_be_disabled()
    sheet.draw()
    sheet.expect_digit("7")
    clear.click()
    sheet.expect_digit(NO_DIGIT)
    expect(sheet.page.locator("#seen")).to_be_hidden()
    expect(clear).to_be_disabled()
    undo.click()
    sheet.expect_digit("7")
    sheet.page.keyboard.press("Control+z")
    sheet.expect_digit(NO_DIGIT)
    expect(undo).to_be_disabled()


def test_a_digit_can_be_drawn_by_keyboard_alone(sheet: Sheet):
    sheet.page.locator("#pad").focus()
    press = sheet.page.keyboard.press
    for key in ["ArrowUp"] * 11 + ["Space"] + ["ArrowDown"] * 22 + ["Space"]:
        press(key)
    sheet.expect_digit("1")
    press("Escape")
    expect(sheet.page.locator("#pen-cursor")).to_be_hidden()


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_of_each_kind_is_read(sheet: Sheet, name: str):
    sheet.upload(name, PICTURES[name])
    sheet.expect_digit("7")
    expect(sheet.page.locator("#source")).to_contain_text(f"Picture: {name}")
    polarity = "light ink on a dark" if name in ("chalk.png", "small.png") else "dark ink on a light"
    expect(sheet.page.locator("#seen-text")).to_contain_text(polarity)


def test_a_stroke_on_top_of_a_picture_changes_it(sheet: Sheet):
    refusal = sheet.card(DEFAULT).locator(".refusal")
    sheet.upload("blank.png", encode(".png", np.full((300, 300), 240, np.uint8)))
    expect(refusal).to_contain_text("there is no ink")
    sheet.draw()
    sheet.expect_digit("7")
    sheet.page.locator("#undo").click()
    expect(refusal).to_contain_text("there is no ink")
    sheet.page.locator("#undo").click()
    expect(sheet.page.locator("#undo")).to_be_disabled()


PUT = """async ([base64, how]) => {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "seven.png", { type: "image/png" }));
  if (how === "paste") document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
  if (how === "drop") document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
  const picture = new Blob([bytes], { type: "image/png" });
  if (how === "clipboard") await navigator.clipboard.write([new ClipboardItem({ "image/png": picture })]);
}"""


def as_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.parametrize(("how", "source"), [("paste", "from the clipboard"), ("drop", "seven.png")])
def test_a_picture_is_taken_from_a_paste_and_a_drop(sheet: Sheet, how: str, source: str):
    sheet.page.evaluate(PUT, [as_base64(encode(".png", paper())), how])
    sheet.expect_digit("7")
    expect(sheet.page.locator("#source")).to_have_text(f"Picture: {source}")


def test_a_picture_is_taken_from_the_clipboard_by_button(open_sheet: Callable[..., Sheet]):
    sheet = open_sheet(permissions=["clipboard-read", "clipboard-write"]).open()
    sheet.page.evaluate(PUT, [as_base64(encode(".png", paper())), "clipboard"])
    sheet.page.locator("#paste").click()
    sheet.expect_digit("7")
    sheet.page.evaluate("navigator.clipboard.writeText('no picture')")
    sheet.page.locator("#paste").click()
    expect(sheet.page.locator("#source")).to_have_text("The clipboard holds no picture.")


def test_a_picture_is_taken_by_camera(open_sheet: Callable[..., Sheet]):
    sheet = open_sheet(permissions=["camera"]).open()
    sheet.page.locator("#camera").click()
    view = sheet.page.locator("#camera-view")
    expect(view).to_be_visible()
    sheet.page.locator("#camera-take").click()
    expect(sheet.page.locator("#source")).to_contain_text("from the camera")
    expect(sheet.page.locator("#camera-dialog")).to_be_hidden()
    assert view.evaluate("view => view.srcObject") is None
    expect(sheet.card(DEFAULT).locator(".time")).to_contain_text("Answered in")


# A camera without a picture until `window.showPicture()`.
SLOW_CAMERA = """
  const stream = new MediaStream();
  navigator.mediaDevices.getUserMedia = async () => stream;
  window.showPicture = () => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 64 });
    canvas.getContext("2d").fillRect(0, 0, 64, 64);
    stream.addTrack(canvas.captureStream().getTracks()[0]);
  };
"""


def test_a_camera_that_shows_nothing_yet_cannot_be_pressed(open_sheet: Callable[..., Sheet]):
    sheet = open_sheet()
    sheet.page.add_init_script(SLOW_CAMERA)
    sheet.open().page.locator("#camera").click()
    take = sheet.page.locator("#camera-take")
    expect(take).to_be_visible()
    expect(take).to_be_disabled()
    sheet.page.evaluate("showPicture()")
    take.click()
    expect(sheet.page.locator("#source")).to_contain_text("from the camera")
    expect(take).to_be_disabled()


def test_a_camera_may_be_closed_before_it_shows_anything(open_sheet: Callable[..., Sheet]):
    sheet = open_sheet()
    sheet.page.add_init_script(SLOW_CAMERA)
    sheet.open().page.locator("#camera").click()
    sheet.page.locator("#camera-close").click()
    expect(sheet.page.locator("#camera-dialog")).to_be_hidden()
    assert sheet.page.locator("#camera-view").evaluate("view => view.srcObject") is None


MANY_CAMERAS = """
  const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  window.tracks = [];
  navigator.mediaDevices.getUserMedia = async (...what) => {
    const stream = await ask(...what);
    tracks.push(...stream.getTracks());
    return stream;
  };
"""


def test_no_camera_goes_on_after_its_dialog_is_closed(open_sheet: Callable[..., Sheet]):
    sheet = open_sheet(permissions=["camera"])
    sheet.page.add_init_script(MANY_CAMERAS)
    sheet.open().page.evaluate("for (const press of [1, 2]) document.getElementById('camera').click()")
    expect(sheet.page.locator("#camera-take")).to_be_enabled()
    settle_on(sheet, lambda: sheet.page.evaluate("tracks.length"), 2, 10)
    sheet.page.locator("#camera-close").click()
    settle_on(sheet, lambda: sheet.page.evaluate("tracks.map((track) => track.readyState)"), ["ended"] * 2, 10)


def test_networks_answer_side_by_side_and_the_choice_is_kept(sheet: Sheet):
    names = [box.get_attribute("value") for box in sheet.page.locator("#models input").all()]
    assert {DEFAULT, "mnist-mlp", "mnist-lenet5", "layered"} <= set(names)
    real = [name for name in names if name and name != "layered"]
    sheet.choose(*real)
    sheet.draw()
    for name in real:
        sheet.expect_digit("7", name)
    sheet.choose()
    expect(sheet.page.locator("#no-cards")).to_be_visible()
    sheet.choose("mnist-mlp")
    expect(sheet.page.locator(".card")).to_have_count(1)
    sheet.open()
    expect(sheet.page.locator(".card")).to_have_count(1)
    expect(sheet.card("mnist-mlp")).to_be_visible()


def choose_layered(sheet: Sheet) -> None:
    sheet.choose("layered")
    sheet.draw()
    expect(sheet.card("layered").locator(".time")).to_contain_text("Answered in")


def pick(sheet: Sheet, layer: str, *keys: str) -> None:
    maps = sheet.page.locator(f'[data-layer="{layer}"] canvas.maps').first
    maps.focus()
    for key in keys:
        maps.press(key)


def test_the_inside_shows_what_numpy_computes(sheet: Sheet):
    choose_layered(sheet)
    view = sheet.view("inside")
    expect(view.locator(".layer")).to_have_count(6)
    expect(view.locator('[data-layer="conv"]')).to_contain_text("(28 + 2*0 - 5)//1 + 1 = 24")
    expected = expected_layers(sheet.seen())
    pick(sheet, "conv", "PageDown", *["ArrowRight"] * 9, *["ArrowDown"] * 7)
    inspector = view.locator(".inspector")
    expect(inspector.locator("h4")).to_contain_text("conv, map 1, row 7, column 9")
    assert number(inspector.locator("h4").text_content()) == pytest.approx(expected["conv"][1, 7, 9], abs=ROUNDED)
    tables = [
        np.array(
            [
                [number(cell + ".0" if "." not in cell else cell) for cell in row.locator("td").all_text_contents()]
                for row in table.locator("tr").all()
            ]
        )
        for table in inspector.locator("table.numbers").all()
    ]
    patch = expected["normalize"][0, 7:12, 9:14]
    kernel = weights()["conv.weight"][1, 0]
    for found, right in zip(tables, (patch, kernel, patch * kernel), strict=True):
        np.testing.assert_allclose(found, right, atol=ROUNDED)
    sheet.screenshot("inside-light")


def error_of(sheet: Sheet, layer: str) -> float:
    """Return by how much the second value of a layer, as it is shown, differs from what the picture gives."""
    value: float = expected_layers(sheet.seen())[layer].reshape(-1)[1]
    return number(sheet.view("inside").locator(".inspector h4").text_content()) - value


def test_every_kind_of_layer_says_how_a_value_came_about(sheet: Sheet):
    choose_layered(sheet)
    inspector = sheet.view("inside").locator(".inspector")
    for layer, text in {
        "normalize": f"(pixel / 255 {MINUS} 0.1307) / 0.3081",
        "pool": "the largest is",
        "relu": "max(0, x), x =",
        "flatten": "position 1 is map 0, row 0, column 1",
        "linear": "The strongest of 432 products",
    }.items():
        pick(sheet, layer, "ArrowRight")
        expect(inspector).to_contain_text(text)
        # The picture may be that of the whole line only now, and the text that of the place before.
        settle_on(sheet, partial(error_of, sheet, layer), pytest.approx(0, abs=ROUNDED), seconds=5, what=layer)


# Work out values from the terms that the page shows, at 20 places of each layer, and return the largest difference.
WORK_OUT = """async ([folder, model]) => {
  const { Network } = await import(`${folder}/network.js`);
  const api = await import(`${folder}/api.js`);
  const network = new Network(await api.describe(model));
  const seen = document.getElementById("seen-picture");
  const blob = await new Promise((resolve) => seen.toBlob(resolve, "image/png"));
  network.fill(await api.explain(blob, model, "layers"));
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const right = {
    products: ({ terms, bias }) => sum(terms.map((term) => term.sum)) + bias,
    weighted: ({ products, bias }) => sum(products.map(({ product }) => product)) + bias,
    largest: ({ terms }) => Math.max(...terms[0].patch.flat()),
    mean: ({ terms }) => sum(terms[0].patch.flat()) / terms[0].patch.flat().length,
    subsampling: ({ terms, factor, bias }) => sum(terms[0].patch.flat()) * factor + bias,
    scaled: ({ before, factor, bias }) => before * factor + bias,
    function: ({ before }, layer) => ({
      ReLU: Math.max(0, before),
      ScaledTanh: 1.7159 * Math.tanh((before * 2) / 3),
      normalize: (before / 255 - 0.1307) / 0.3081,
    })[layer.kind],
    text: ({ pixel, value, source }) => {
      if (!pixel) return value;
      const [, height, width] = network.extent(network.byName.get(source));
      return network.values.get(source).values[(pixel[0] * height + pixel[1]) * width + pixel[2]];
    },
  };
  const differences = {};
  for (const layer of network.layers) {
    const [maps, height, width] = network.extent(layer);
    for (let number = 0; number < 20; number++) {
      const index = Math.floor((number / 20) * maps * height * width);
      const place = [Math.floor(index / (height * width)), Math.floor(index / width) % height, index % width];
      const explained = network.explain(layer, place);
      const difference = Math.abs(right[explained.kind](explained, layer) - explained.value);
      differences[layer.name] = Math.max(differences[layer.name] ?? 0, difference);
    }
  }
  return differences;
}"""


def test_the_terms_shown_give_the_value_in_every_layer_of_every_network(sheet: Sheet, server: Server):
    sheet.draw()
    sheet.expect_digit("7")
    script = sheet.page.locator("script[src]").get_attribute("src") or ""
    models = {model["name"] for model in json.loads(server.get("/models").content)["models"] if model["layers"]}
    assert models == {path.name for path in (ROOT / "models").iterdir() if path.is_dir()} | {"layered"}
    for model in models - {"layered"}:  # its picture is not normalised
        differences = sheet.page.evaluate(WORK_OUT, ["/" + script.rpartition("/")[0], model])
        assert max(differences.values()) < 1e-3, (model, differences)


def test_pointing_at_a_value_frames_what_it_was_made_of(sheet: Sheet):
    choose_layered(sheet)
    view = sheet.view("inside")
    maps = view.locator('[data-layer="conv"] canvas.maps').first
    maps.hover(position={"x": 30, "y": 30})
    expect(view.locator(".inspector h4")).to_contain_text("conv, map 0")
    frame = view.locator('[data-layer="normalize"] .mark:not(.picked)')
    expect(frame).to_have_count(1)
    width = frame.evaluate("mark => parseFloat(mark.style.width)")
    assert width == pytest.approx(100 * 5 / 28, abs=1e-3)


def test_the_inside_follows_the_drawing(sheet: Sheet):
    choose_layered(sheet)
    view = sheet.view("inside")
    pick(sheet, "conv", *["ArrowDown"] * 5, *["ArrowRight"] * 9)
    before = view.locator(".inspector").get_attribute("data-value")
    sheet.page.locator("#clear").click()
    sheet.draw(((0.5, 0.1), (0.5, 0.9)))
    expect(view.locator(".inspector")).not_to_have_attribute("data-value", before or "")
    row, column = 5, 9
    value = expected_layers(sheet.seen())["conv"][0, row, column]
    expect(view.locator(".inspector h4")).to_contain_text(f"row {row}, column {column}")
    assert number(view.locator(".inspector h4").text_content()) == pytest.approx(value, abs=ROUNDED)


def test_the_occlusion_map_says_what_covering_changes(sheet: Sheet):
    choose_layered(sheet)
    view = sheet.view("occlusion")
    maps = view.locator('canvas.maps[role="application"]')
    expect(maps).to_be_visible()
    maps.focus()
    for key in ["ArrowRight"] * 12 + ["ArrowDown"] * 14:
        maps.press(key)
    covered = sheet.seen()
    covered[12:17, 10:15] = 0
    logits = expected_layers(covered)["linear"]
    share = 100 * np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    text = view.locator(".occlusion-text").text_content() or ""
    found = re.match(r"Row 14, column 12 covered: (\d), >?([\d.]+) %", text)
    assert found, text
    assert int(found[1]) == logits.argmax()
    assert float(found[2]) == pytest.approx(share.max(), abs=0.11)
    sheet.screenshot("occlusion-light")


def test_the_bench_filters_the_drawing_as_numpy_does(sheet: Sheet):
    sheet.draw()
    sheet.expect_digit("7")
    view = sheet.view("bench")
    formula = view.locator(".bench-formula")
    expect(formula).to_have_text(f"(28 + 2·0 {MINUS} 3) / 1 + 1 = 26")
    view.get_by_label("Padding").fill("2")
    view.get_by_label("Stride").fill("2")
    expect(formula).to_contain_text(f"(28 + 2·2 {MINUS} 3) / 2 + 1 = 15")
    expect(formula).to_contain_text("rounded down")
    view.get_by_label("Row 1, column 1").fill("2.5")
    expect(view.locator("select").first).to_have_value("typed")
    maps = view.locator('canvas.maps[role="application"]')
    maps.focus()
    for key in ["ArrowRight"] * 6 + ["ArrowDown"] * 5:
        maps.press(key)
    padded = np.pad(sheet.seen() / 255, 2)
    kernel = np.array([[2.5, 0, 1], [-1, 0, 1], [-1, 0, 1]])
    right = (padded[10:13, 12:15] * kernel).sum()
    found = view.locator(".bench-sum caption").last.text_content()
    assert number(found) == pytest.approx(right, abs=ROUNDED)
    sheet.screenshot("bench-light")


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("Stride", "0", "Stride 0 is too small: the kernel would never move on."),
        ("Stride", "1.5", "Stride must be a whole number."),
        ("Padding", "-1", "Padding -1 is too small: pixels can be added around the picture, not taken away."),
        ("Row 2, column 2", "", "Every field of the kernel needs a number."),
    ],
)
def test_an_impossible_convolution_says_why(sheet: Sheet, field: str, value: str, why: str):
    sheet.draw()
    sheet.expect_digit("7")
    view = sheet.view("bench")
    view.get_by_label(field).fill(value)
    expect(view.locator(".error")).to_have_text(why)
    expect(view.locator(".pair")).to_be_hidden()


def test_a_kernel_that_does_not_fit_says_why(sheet: Sheet):
    sheet.draw()
    sheet.expect_digit("7")
    view = sheet.view("bench")
    view.get_by_label("Side").select_option("5")
    view.get_by_label("Picture", exact=False).select_option("4")
    expect(view.locator(".error")).to_have_text("A kernel of 5 \u00d7 5 does not fit into 4 + 2·0 = 4 pixels.")
    view.get_by_label("Padding").fill("1")
    expect(view.locator(".bench-formula")).to_have_text(f"(4 + 2·1 {MINUS} 5) / 1 + 1 = 2")


def run(command: list[str], text: str) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("language", ["curl", "Python", "gRPC"])
def test_the_copied_request_works_when_pasted(open_sheet: Callable[..., Sheet], language: str):
    if language == "curl" and not shutil.which("curl"):
        pytest.skip("curl is not installed")
    sheet = open_sheet(permissions=["clipboard-read", "clipboard-write"]).open()
    sheet.draw()
    expect(sheet.page.locator("#spoken")).to_contain_text("reads 7")
    view = sheet.view("code")
    copied = view.get_by_role("button", name="Copied")

    def copy() -> bool:
        if not copied.is_visible():
            view.get_by_role("button", name=f"Copy as {language}").click()
        return copied.is_visible()

    # The answer to the whole line may come only now, and bring another request.
    settle_on(sheet, copy, expected=True, seconds=10)
    text = sheet.page.evaluate("navigator.clipboard.readText()")
    if language == "curl":
        assert json.loads(run(["sh"], text))["predictions"][0]["digit"] == 7
    else:
        assert run([sys.executable, "-"], text).split()[0] == "7"


def test_a_request_that_is_answered_again_stays_as_it_is_shown(sheet: Sheet):
    sheet.upload("paper.png", encode(".png", paper()))
    expect(sheet.page.locator("#spoken")).to_contain_text(DEFAULT)
    button = sheet.view("code").locator('[data-snippet="curl"] button').element_handle()
    sheet.choose(DEFAULT, "mnist-mlp")
    expect(sheet.page.locator("#spoken")).to_contain_text("mnist-mlp")
    # With its focus, and with the word that it was copied.
    assert button.evaluate("button => button.isConnected")


def test_a_file_that_is_no_picture_is_explained_in_words(sheet: Sheet):
    sheet.upload("letter.txt", b"Dear network, this is no picture.", "text/plain")
    error = sheet.card(DEFAULT).locator(".error")
    expect(error).to_contain_text(re.compile("picture|format", re.IGNORECASE))
    expect(error).not_to_contain_text("status 4")
    sheet.page.locator("#clear").click()
    sheet.draw()
    sheet.expect_digit("7")


def test_a_file_that_is_too_large_is_explained_in_words(sheet: Sheet):
    sheet.upload("large.bmp", b"BM" + bytes(MAX_BODY_BYTES))
    expect(sheet.card(DEFAULT).locator(".error")).to_contain_text(f"limit of {MAX_BODY_BYTES} bytes")


def test_offline_it_says_so_and_comes_back(sheet: Sheet):
    sheet.page.context.set_offline(True)
    expect(sheet.page.locator("#banner")).to_contain_text("This device is offline.")
    sheet.draw()
    sheet.page.context.set_offline(False)
    expect(sheet.page.locator("#banner")).to_be_hidden()
    sheet.expect_digit("7")


def test_when_the_service_is_gone_it_says_so_and_comes_back(sheet: Sheet):
    gone = re.compile("/(predict|readyz)")
    sheet.page.route(gone, lambda route: route.abort())
    sheet.draw()
    expect(sheet.page.locator("#banner")).to_contain_text("The service does not answer. Your drawing is kept")
    sheet.page.unroute(gone)
    expect(sheet.page.locator("#banner")).to_be_hidden()
    sheet.expect_digit("7")


def test_a_service_that_has_too_much_to_do_is_asked_again(sheet: Sheet):
    asked: list[int] = []

    def refuse_once(route: object) -> None:
        asked.append(1)
        if len(asked) > 1:
            route.continue_()
        else:
            route.fulfill(status=429, headers={"retry-after": "1"}, json={"error": "2048 images wait"})

    sheet.page.locator("#pad").focus()
    sheet.page.route("**/predict*", refuse_once)
    sheet.upload("paper.png", encode(".png", paper()))
    expect(sheet.card(DEFAULT).locator(".error")).to_have_text("2048 images wait")
    sheet.expect_digit("7")


def test_views_that_are_switched_off_are_not_offered(open_sheet: Callable[..., Sheet], server: Server):
    sheet = open_sheet()
    listed = json.loads(server.get("/models").content) | {"explain": False}
    sheet.page.route("**/models", lambda route: route.fulfill(json=listed))
    sheet.open()
    expect(sheet.page.locator("#inside")).to_be_hidden()
    expect(sheet.page.locator("#occlusion")).to_be_hidden()
    expect(sheet.page.locator("#bench")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_stands_in_the_way_of_anybody(open_sheet: Callable[..., Sheet], width: int, scheme: str):
    sheet = open_sheet(width, 740, scheme).open()
    sheet.choose(DEFAULT, "layered")
    sheet.draw()
    sheet.expect_digit("7")
    assert violations(sheet.page) == []
    sheet.view("inside").locator("canvas.maps").nth(1).focus()
    for name in ("occlusion", "bench", "code"):
        sheet.view(name)
    expect(sheet.page.locator("#occlusion .pair")).to_be_visible()
    assert violations(sheet.page) == []
    assert sheet.page.evaluate("document.documentElement.scrollWidth") == width
    sheet.screenshot(f"all-{scheme}-{width}")


def test_the_theme_can_be_chosen_and_is_kept(sheet: Sheet):
    ground = "getComputedStyle(document.body).backgroundColor"
    light = sheet.page.evaluate(ground)
    button = sheet.page.locator("#theme")
    button.click()
    button.click()
    expect(button).to_have_text("Theme: dark")
    dark = sheet.page.evaluate(ground)
    assert dark != light
    sheet.open()
    assert sheet.page.evaluate(ground) == dark


@pytest.mark.parametrize("width", [360, 1280])
def test_the_documentation_is_one_click_away(open_sheet: Callable[..., Sheet], width: int):
    sheet = open_sheet(width).open()
    sheet.page.get_by_role("link", name="API documentation").click()
    expect(sheet.page.locator("article")).to_have_count(10)
    predict = sheet.page.locator("article").first
    expect(predict).to_contain_text("/predict")
    for summary in predict.locator("summary").all():
        summary.click()
    expect(predict.locator("pre").last).to_contain_text('"digit": 7')
    command = predict.locator("pre").first.text_content() or ""
    if shutil.which("curl"):
        assert json.loads(run(["sh"], command))["predictions"][0]["digit"] == 7
    assert violations(sheet.page) == []
    assert sheet.page.evaluate("document.documentElement.scrollWidth") == width
    sheet.screenshot(f"docs-{width}")
