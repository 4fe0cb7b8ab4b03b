"""The page for everybody: accessible, in both themes, with what is offered."""

import json
from collections.abc import Callable

import pytest

from tests.e2e.browser import Sheet, expect, violations
from tests.e2e.page.conftest import DEFAULT
from tests.e2e.page.steps import settle_on
from tests.e2e.server import Server

pytestmark = pytest.mark.browser


def test_views_that_are_switched_off_are_not_offered(open_sheet: Callable[..., Sheet], server: Server):
    sheet = open_sheet()
    listed = json.loads(server.get("/models").content) | {"explain": False}
    sheet.page.route("**/models", lambda route: route.fulfill(json=listed))
    sheet.open()
    expect(sheet.page.locator("#inside")).to_be_hidden()
    expect(sheet.page.locator("#occlusion")).to_be_hidden()
    expect(sheet.page.locator("#bench")).to_be_visible()


def test_what_happens_is_told_to_those_who_do_not_see_it(sheet: Sheet):
    spoken = sheet.page.locator("#spoken")
    sheet.upload("letter.txt", b"Dear network, this is no picture.", "text/plain")
    expect(spoken).to_contain_text(f"{DEFAULT}: ")
    assert spoken.text_content() == f"{DEFAULT}: {sheet.card(DEFAULT).locator('.error').text_content()}"
    expect(sheet.page.locator("[role=status]#source")).to_contain_text("letter.txt")
    # Of two places that tell it, one is silent.
    assert sheet.page.locator(".card output, .card [role=status]").count() == 0


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


def test_it_is_printed_on_white_paper(open_sheet: Callable[..., Sheet]):
    sheet = open_sheet(scheme="dark").open()
    sheet.page.locator("#theme").click()
    sheet.page.locator("#theme").click()
    expect(sheet.page.locator("#theme")).to_have_text("Theme: dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = sheet.page.evaluate(ground)
    sheet.page.emulate_media(media="print")
    assert sheet.page.evaluate(ground) not in (dark, "rgb(20, 22, 26)")
    assert sheet.page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"


def test_the_heading_says_what_is_not_accepted(open_sheet: Callable[..., Sheet]):
    sheet = open_sheet(360, 740).open()
    zigzag = ((0.2, 0.2), (0.8, 0.8), (0.2, 0.8), (0.8, 0.2), (0.5, 0.1), (0.5, 0.9), (0.1, 0.5), (0.9, 0.5))
    sheet.draw(zigzag)
    expect(sheet.card(DEFAULT).locator(".refusal")).to_contain_text("Not accepted")
    expect(sheet.page.locator("#quick")).to_contain_text("not accepted")


@pytest.mark.parametrize(("width", "height"), [(740, 360), (568, 320), (640, 360), (320, 256)])
def test_the_whole_sheet_fits_on_a_screen_that_lies(open_sheet: Callable[..., Sheet], width: int, height: int):
    area = open_sheet(width, height).open().page.locator("#sheet").bounding_box()
    assert area is not None
    assert 160 <= area["height"] < height


CORNER = """place => {
  const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  pen.drawImage(document.querySelector(place), 0, 0);
  return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
}"""


def test_maps_follow_the_theme_of_the_system_and_kernels_that_of_the_page(sheet: Sheet):
    sheet.draw()
    sheet.expect_digit("7")
    view = sheet.view("inside")
    relu, kernels = '[data-layer="relu1"] canvas', '[data-layer="conv1"] details canvas'
    view.locator('[data-layer="conv1"] summary').press("Enter")
    expect(view.locator(kernels)).to_be_visible()
    assert sheet.page.evaluate(CORNER, relu) == [255, 255, 255]
    light = sheet.page.evaluate(CORNER, kernels)
    sheet.page.emulate_media(color_scheme="dark")
    settle_on(sheet, lambda: sheet.page.evaluate(CORNER, relu), [13, 15, 19])
    assert sheet.page.evaluate(CORNER, kernels) != light


def test_bars_are_seen_where_colours_are_forced(open_sheet: Callable[..., Sheet]):
    sheet = open_sheet(forced_colors="active").open()
    sheet.draw()
    sheet.expect_digit("7")
    colour = "element => getComputedStyle(element).backgroundColor"
    fill = sheet.page.locator(".best .fill").evaluate(colour)
    assert fill != sheet.page.locator(".card").evaluate(colour)
