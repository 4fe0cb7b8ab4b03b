"""Strokes that meet each other, an undo, or another picture."""

from collections.abc import Callable
from functools import partial

import pytest

from tests.e2e.browser import Sheet, encode, expect, paper
from tests.e2e.page.conftest import DEFAULT
from tests.e2e.page.steps import NO_DIGIT, settle_on

pytestmark = pytest.mark.browser

INK = """() => {
  const pen = new OffscreenCanvas(448, 448).getContext("2d", { willReadFrequently: true });
  pen.drawImage(document.getElementById("pad"), 0, 0);
  const { data } = pen.getImageData(0, 0, 448, 448);
  return data.filter((value, index) => index % 4 === 0 && value < 128).length;
}"""


# It is painted with the next frame.
PAINTED = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def ink(sheet: Sheet) -> int:
    sheet.page.evaluate(PAINTED)
    return int(sheet.page.evaluate(INK))


def touch(sheet: Sheet, kind: str, *points: tuple[int, float, float]) -> dict[str, object]:
    area = sheet.page.locator("#pad").bounding_box()
    assert area is not None
    places = [
        {"x": area["x"] + x * area["width"], "y": area["y"] + y * area["height"], "id": number}
        for number, x, y in points
    ]
    return {"type": kind, "touchPoints": places}


def test_a_palm_adds_nothing_to_the_stroke_of_a_finger(open_sheet: Callable[..., Sheet]):
    drawn = []
    for palm in ((), ((1, 0.8, 0.8),)):
        sheet = open_sheet(has_touch=True).open()
        send = partial(sheet.page.context.new_cdp_session(sheet.page).send, "Input.dispatchTouchEvent")
        send(touch(sheet, "touchStart", (0, 0.3, 0.2)))
        if palm:
            send(touch(sheet, "touchStart", (0, 0.3, 0.2), *palm))
        for step in range(6):
            send(touch(sheet, "touchMove", (0, 0.3, 0.2 + 0.1 * step), *((1, 0.8, 0.8 - 0.01 * step) for _ in palm)))
        send(touch(sheet, "touchEnd"))
        drawn.append(ink(sheet))
    assert drawn[0] > 1000
    assert drawn[1] == pytest.approx(drawn[0], rel=0.02)


def test_an_undo_ends_the_stroke_that_goes_on(sheet: Sheet):
    pad = sheet.page.locator("#pad").bounding_box()
    assert pad is not None
    mouse, press = sheet.page.mouse, sheet.page.keyboard.press
    mouse.move(pad["x"] + 50, pad["y"] + 50)
    mouse.down()
    mouse.move(pad["x"] + 200, pad["y"] + 200, steps=5)
    press("Control+z")
    mouse.move(pad["x"] + 300, pad["y"] + 50, steps=5)
    mouse.up()
    assert ink(sheet) == 0
    sheet.page.locator("#pad").focus()
    for key in ("Space", "ArrowRight", "Control+z", "ArrowRight"):
        press(key)
    assert "down" not in (sheet.page.locator("#pen-cursor").get_attribute("class") or "")
    assert ink(sheet) == 0
    press("Space")
    press("ArrowDown")
    assert ink(sheet) > 0


def test_undo_by_keyboard_works_wherever_no_text_is_typed(sheet: Sheet):
    sheet.draw()
    sheet.expect_digit("7")
    sheet.page.locator("#models input").nth(1).focus()
    sheet.page.keyboard.press("Control+Shift+Z")  # elsewhere the opposite of an undo
    sheet.page.wait_for_timeout(300)
    sheet.expect_digit("7")
    sheet.page.keyboard.press("Control+Z")  # with Caps Lock
    sheet.expect_digit(NO_DIGIT)


def test_the_name_of_a_picture_comes_back_with_it(sheet: Sheet):
    source = sheet.page.locator("#source")
    for name in ("a.png", "b.png"):
        sheet.upload(name, encode(".png", paper()))
        expect(source).to_have_text(f"Picture: {name}")
    sheet.page.locator("#undo").click()
    expect(source).to_have_text("Picture: a.png")
    sheet.page.locator("#undo").click()
    expect(source).to_have_text("")


SLOW_FIRST = """
  const read = window.createImageBitmap;
  let number = 0;
  window.read = 0;
  window.createImageBitmap = async (blob) => {
    const wait_ms = number++ ? 0 : 700;
    await new Promise((resolve) => setTimeout(resolve, wait_ms));
    return read(blob).finally(() => window.read++);
  };
"""


def test_a_picture_that_takes_longer_does_not_land_on_a_newer_one(open_sheet: Callable[..., Sheet]):
    sheet = open_sheet()
    sheet.page.add_init_script(SLOW_FIRST)
    sheet.open()
    for name in ("slow.png", "new.png"):
        sheet.upload(name, encode(".png", paper()))
    settle_on(sheet, lambda: sheet.page.evaluate("read"), 2)
    expect(sheet.page.locator("#source")).to_have_text("Picture: new.png")


COUNT = """
  window.painted = 0;
  for (const kind of [CanvasRenderingContext2D, OffscreenCanvasRenderingContext2D]) {
    const stroke = kind.prototype.stroke;
    kind.prototype.stroke = function () { window.painted++; stroke.call(this); };
  }
"""


def test_a_stroke_costs_the_same_however_many_came_before(open_sheet: Callable[..., Sheet]):
    sheet = open_sheet()
    sheet.page.add_init_script(COUNT)
    sheet.open()
    lines = [tuple((x / 12, y) for y in (0.1, 0.9)) for x in range(1, 11)]
    for line in lines:
        sheet.draw(line)
    before = sheet.page.evaluate("painted")
    sheet.draw(((0.1, 0.1), *((0.1 + 0.02 * step, 0.9 - 0.02 * step) for step in range(30))))
    sheet.page.wait_for_timeout(200)
    moves = 30 * 8
    assert sheet.page.evaluate("painted") - before < 2 * moves
    drawn = ink(sheet)
    sheet.page.locator("#undo").click()
    assert 0 < ink(sheet) < drawn


@pytest.mark.parametrize("act", ["draw", "clear"])
def test_a_picture_that_takes_longer_does_not_land_on_what_is_drawn_meanwhile(
    open_sheet: Callable[..., Sheet], act: str
):
    sheet = open_sheet()
    sheet.page.add_init_script(SLOW_FIRST)
    sheet.open()
    sheet.draw(((0.5, 0.1), (0.5, 0.9)))
    sheet.upload("slow.png", encode(".png", paper()))
    if act == "draw":
        sheet.draw(((0.4, 0.1), (0.5, 0.1)))
    else:
        sheet.page.locator("#clear").click()
    settle_on(sheet, lambda: sheet.page.evaluate("read"), 1)
    sheet.page.wait_for_timeout(300)
    expect(sheet.page.locator("#source")).to_have_text("")


def test_the_pen_is_as_wide_as_its_slider_says_after_one_comes_back(sheet: Sheet):
    sheet.page.locator("#pen-width").fill("60")
    sheet.draw(((0.5, 0.2), (0.5, 0.8)))
    wide = ink(sheet)
    sheet.page.get_by_role("link", name="API documentation").click()
    expect(sheet.page.locator("article").first).to_be_visible()
    sheet.page.go_back()
    expect(sheet.card(DEFAULT)).to_be_visible()
    assert sheet.page.locator("#pen-width").input_value() == "60"
    sheet.draw(((0.5, 0.2), (0.5, 0.8)))
    assert ink(sheet) == pytest.approx(wide, rel=0.02)


def test_a_key_that_is_held_puts_the_pen_down_once(sheet: Sheet):
    sheet.page.locator("#pad").focus()
    for _ in range(7):
        sheet.page.keyboard.down("Space")
    sheet.page.keyboard.up("Space")
    sheet.page.locator("#undo").click()
    expect(sheet.page.locator("#undo")).to_be_disabled()


@pytest.mark.parametrize("key", ["Alt+ArrowLeft", "Control+ArrowLeft", "Meta+ArrowLeft"])
def test_commands_of_the_browser_are_left_to_it(sheet: Sheet, key: str):
    sheet.page.evaluate("addEventListener('keydown', (event) => (window.taken = event.defaultPrevented))")
    sheet.page.locator("#pad").focus()
    sheet.page.keyboard.press(key)
    assert sheet.page.evaluate("taken") is False
