"""A value of the inside is held, so that its arithmetic can be reached."""

import pytest

from tests.e2e.browser import Locator, Sheet, expect
from tests.e2e.page.steps import settle_on_the_whole

pytestmark = pytest.mark.browser

PRESSED = {"x": 147, "y": 30}


def pick(sheet: Sheet) -> tuple[Locator, Locator]:
    """Press a value of conv2 of mnist-cnn; return its maps and the heading of its arithmetic."""
    sheet.draw()
    settle_on_the_whole(sheet)
    view = sheet.view("inside")
    maps = view.locator('[data-layer="conv2"] canvas.maps').first
    maps.scroll_into_view_if_needed()
    maps.click(position=PRESSED)
    return maps, view.locator(".inspector h4")


def test_a_value_that_was_pressed_stays_while_the_mouse_goes_to_its_terms(sheet: Sheet):
    _, head = pick(sheet)
    before = head.text_content()
    term = sheet.page.locator(".inspector button.term").nth(4)
    area = term.bounding_box()
    assert area is not None
    sheet.page.mouse.move(area["x"] + area["width"] / 2, area["y"] + area["height"] / 2, steps=40)
    assert head.text_content() == before
    term.click()
    expect(sheet.page.locator(".inspector caption").first).to_contain_text("map 4")


def test_a_value_lets_go_when_it_is_pressed_once_more(sheet: Sheet):
    maps, head = pick(sheet)
    before = head.text_content() or ""
    maps.hover(position={"x": 20, "y": 30})
    assert head.text_content() == before
    maps.click(position=PRESSED)
    maps.hover(position={"x": 20, "y": 30})
    expect(head).not_to_have_text(before)


def test_the_terms_of_a_value_are_reached_by_keyboard(sheet: Sheet):
    sheet.draw()
    settle_on_the_whole(sheet)
    view = sheet.view("inside")
    view.locator('[data-layer="conv2"] canvas.maps').first.focus()
    for key in ("ArrowDown", "ArrowRight", "Enter", "Tab", "Tab", "Enter"):
        sheet.page.keyboard.press(key)
    expect(view.locator(".inspector h4")).to_contain_text("conv2, map 0, row 1, column 1")
    expect(view.locator(".inspector caption").first).to_contain_text("map 1")
