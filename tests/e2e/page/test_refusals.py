"""Who has too much to do is asked again: who refused, about what is still there."""

import re
from functools import partial
from typing import Any

import pytest

from tests.e2e.browser import Sheet, encode, expect, paper
from tests.e2e.page.conftest import DEFAULT
from tests.e2e.page.steps import choose_layered, settle_on

pytestmark = pytest.mark.browser


def test_only_who_refused_is_asked_again_and_only_as_often(sheet: Sheet):
    sheet.choose(DEFAULT, "mnist-mlp", "mnist-lenet5")
    asked: list[str] = []

    def refuse(route: Any) -> None:
        name = re.findall("model=([^&]+)", route.request.url)[0]
        asked.append(name)
        if name != DEFAULT and asked.count(name) < 3:
            route.fulfill(status=429, headers={"retry-after": "1"}, json={"error": "too many"})
        else:
            route.continue_()

    sheet.page.route("**/predict*", refuse)
    sheet.upload("paper.png", encode(".png", paper()))
    for name in (DEFAULT, "mnist-mlp", "mnist-lenet5"):
        sheet.expect_digit("7", name)
    sheet.page.wait_for_timeout(2500)
    assert sorted(asked) == sorted([DEFAULT] + 3 * ["mnist-mlp", "mnist-lenet5"])


def test_a_refusal_of_an_older_drawing_asks_nothing(sheet: Sheet):
    asked: list[int] = []

    def refuse(route: Any) -> None:
        asked.append(1)
        if len(asked) <= 4:
            route.fulfill(status=429, headers={"retry-after": "1"}, json={"error": "too many"})
        else:
            route.continue_()

    sheet.page.route("**/predict*", refuse)
    for number in range(5):
        sheet.upload(f"{number}.png", encode(".png", paper()))
        settle_on(sheet, partial(len, asked), number + 1)
    sheet.expect_digit("7")
    sheet.page.wait_for_timeout(2000)
    assert len(asked) == 5


@pytest.mark.parametrize(("name", "shown"), [("inside", ".layer"), ("occlusion", ".pair")])
def test_the_inside_of_what_was_there_before_goes_away(sheet: Sheet, name: str, shown: str):
    choose_layered(sheet)
    view = sheet.view(name)
    expect(view.locator(shown).first).to_be_visible()
    sheet.upload("letter.txt", b"Dear network, this is no picture.", "text/plain")
    expect(view.locator("[role=status]")).to_contain_text("unknown format")
    expect(view.locator(shown).first).to_be_hidden()


@pytest.mark.parametrize(("name", "shown"), [("inside", ".layer"), ("occlusion", ".pair")])
@pytest.mark.parametrize("status", [429, 503])
def test_an_inside_that_was_refused_is_asked_for_again(sheet: Sheet, name: str, shown: str, status: int):
    choose_layered(sheet)
    refused: list[int] = []

    def refuse_once(route: Any) -> None:
        if route.request.method == "POST" and not refused:
            refused.append(1)
            route.fulfill(status=status, headers={"retry-after": "1"}, json={"error": "16 explanations wait"})
        else:
            route.continue_()

    sheet.page.route("**/explain*", refuse_once)
    view = sheet.view(name)
    expect(view.locator(shown).first).to_be_visible()
    expect(view.locator("[role=status]")).to_have_text("")
