"""Pictures from files, the clipboard and the camera."""

import base64
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.browser import PICTURES, Sheet, encode, expect, paper
from tests.e2e.page.conftest import DEFAULT, MAX_BODY_BYTES
from tests.e2e.page.steps import settle_on

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_of_each_kind_is_read(sheet: Sheet, name: str):
    sheet.upload(name, PICTURES[name])
    sheet.expect_digit("7")
    expect(sheet.page.locator("#source")).to_contain_text(f"Picture: {name}")
    polarity = "light ink on a dark" if name in ("chalk.png", "small.png") else "dark ink on a light"
    expect(sheet.page.locator("#seen-text")).to_contain_text(polarity)


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


@pytest.mark.parametrize("place", ["#models input >> nth=0", "#pen-width", "#pad"])
def test_a_picture_is_pasted_wherever_no_text_is_typed(open_sheet: Callable[..., Sheet], place: str):
    sheet = open_sheet(permissions=["clipboard-read", "clipboard-write"]).open()
    sheet.page.evaluate(PUT, [as_base64(encode(".png", paper())), "clipboard"])
    sheet.page.locator(place).focus()
    sheet.page.keyboard.press("Control+v")
    expect(sheet.page.locator("#source")).to_have_text("Picture: from the clipboard")


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
    settle_on(sheet, lambda: sheet.page.evaluate("tracks.length"), 2)
    sheet.page.locator("#camera-close").click()
    settle_on(sheet, lambda: sheet.page.evaluate("tracks.map((track) => track.readyState)"), ["ended"] * 2)


def test_a_file_that_is_no_picture_is_explained_in_words(sheet: Sheet):
    sheet.upload("letter.txt", b"Dear network, this is no picture.", "text/plain")
    error = sheet.card(DEFAULT).locator(".error")
    expect(error).to_contain_text(re.compile("picture|format", re.IGNORECASE))
    expect(error).not_to_contain_text("status 4")
    sheet.page.locator("#clear").click()
    sheet.draw()
    sheet.expect_digit("7")


KEEP_BITMAPS = """
  const read = window.createImageBitmap;
  window.bitmaps = [];
  window.createImageBitmap = async (...what) => {
    const bitmap = await read(...what);
    bitmaps.push(bitmap);
    return bitmap;
  };
"""


def test_a_large_picture_takes_no_more_room_than_the_sheet(open_sheet: Callable[..., Sheet]):
    sheet = open_sheet()
    sheet.page.add_init_script(KEEP_BITMAPS)
    sheet.open().upload("photo.jpg", encode(".jpg", paper(side=3000)[:, :2500]))
    sheet.expect_digit("7")
    sizes = sheet.page.evaluate("bitmaps.filter(({ width }) => width).map(({ width, height }) => [width, height])")
    assert sizes == [[373, 448]]
    expect(sheet.page.locator("#seen-text")).to_contain_text("in 2500 \u00d7 3000 pixels")


def test_a_folder_that_is_dropped_is_no_picture(sheet: Sheet, tmp_path: Path):
    area = sheet.page.locator("#pad").bounding_box()
    assert area is not None
    send = sheet.page.context.new_cdp_session(sheet.page).send
    data = {"items": [], "files": [str(tmp_path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        send("Input.dispatchDragEvent", {"type": kind, "x": area["x"] + 50, "y": area["y"] + 50, "data": data})
    expect(sheet.page.locator("#source")).to_contain_text(f"{tmp_path.name} cannot be read")
    expect(sheet.page.locator("#banner")).to_be_hidden()
    expect(sheet.page.locator("#clear")).to_be_disabled()


def test_a_file_that_changes_after_it_was_chosen_is_still_the_picture(sheet: Sheet, tmp_path: Path):
    file = tmp_path / "seven.png"
    file.write_bytes(PICTURES["small.png"])
    sheet.page.locator("#file").set_input_files(file)
    sheet.expect_digit("7")
    file.write_bytes(b"another")
    sheet.choose("mnist-mlp")
    sheet.expect_digit("7", "mnist-mlp")


def test_a_file_that_is_too_large_is_explained_in_words(sheet: Sheet):
    sheet.upload("large.bmp", b"BM" + bytes(MAX_BODY_BYTES))
    expect(sheet.card(DEFAULT).locator(".error")).to_contain_text(f"limit of {MAX_BODY_BYTES} bytes")
