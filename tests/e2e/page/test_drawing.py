"""Drawing on the sheet, and what is read."""

import re

import numpy as np
import pytest

from tests.e2e.browser import Sheet, encode, expect
from tests.e2e.page.conftest import DEFAULT
from tests.e2e.page.steps import NO_DIGIT, settle_on_the_whole

pytestmark = pytest.mark.browser


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
    settle_on_the_whole(sheet)


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
