"""The service refuses, is away, or comes back."""

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.e2e.browser import Sheet, encode, expect, paper
from tests.e2e.page.conftest import DEFAULT
from tests.e2e.page.steps import NO_DIGIT, settle_on
from tests.e2e.server import Server

pytestmark = pytest.mark.browser


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


def test_an_answer_of_somebody_else_is_no_answer_of_the_service(sheet: Sheet):
    sheet.page.route("**/predict*", lambda route: route.fulfill(body="<p>Sign in to this network</p>"))
    sheet.draw()
    expect(sheet.page.locator("#banner")).to_contain_text("What answers is not the service.")
    sheet.page.unroute("**/predict*")
    sheet.expect_digit("7")


@pytest.mark.parametrize("chosen", [(DEFAULT,), ()])
def test_networks_stay_as_they_were_chosen_when_the_service_comes_back(sheet: Sheet, chosen: tuple[str, ...]):
    sheet.choose(*chosen)
    sheet.page.locator("#models input").nth(1).focus()
    sheet.page.context.set_offline(True)
    expect(sheet.page.locator("#banner")).to_be_visible()
    with sheet.page.expect_response("**/models"):
        sheet.page.context.set_offline(False)
    expect(sheet.page.locator("#banner")).to_be_hidden()
    expect(sheet.page.locator("#models input").nth(1)).to_be_focused()
    expect(sheet.page.locator(".card")).to_have_count(len(chosen))


WATCH_BANNER = """() => {
  const banner = document.getElementById("banner");
  const says = () => (banner.hidden ? "" : banner.textContent);
  window.said = [says()];
  const look = new MutationObserver(() => said.push(says()));
  look.observe(banner, { attributes: true, childList: true });
}"""


def test_what_is_wrong_is_said_once_however_often_it_is_tried(sheet: Sheet):
    tried: list[int] = []

    def refuse(route: Any) -> None:
        tried.append(1)
        route.fulfill(status=503, headers={"x-request-id": str(len(tried))}, json={"error": "it is stopping"})

    sheet.page.route("**/predict*", refuse)
    sheet.page.evaluate(WATCH_BANNER)
    sheet.upload("paper.png", encode(".png", paper()))
    settle_on(sheet, lambda: len(tried) >= 3, True)
    sheet.page.unroute("**/predict*")
    sheet.expect_digit("7")
    expect(sheet.page.locator("#banner")).to_be_hidden()
    said = sheet.page.evaluate("said.filter((text, place) => text !== said[place - 1])")
    assert said == ["", "it is stopping Your drawing is kept; trying again \u2026", ""]


@pytest.mark.parametrize("body", ["{}", "null", '{"model": {}, "predictions": []}'])
@pytest.mark.parametrize("path", ["models", "predict"])
def test_json_of_somebody_else_is_no_answer_of_the_service(sheet: Sheet, path: str, body: str):
    asked = re.compile(f"/{path}")
    sheet.page.route(asked, lambda route: route.fulfill(body=body, content_type="application/json"))
    sheet.page.goto(sheet.url)
    sheet.draw()
    expect(sheet.page.locator("#banner")).to_contain_text("What answers is not the service.")
    sheet.page.unroute(asked)
    sheet.expect_digit("7")


def test_what_was_read_before_is_no_answer_for_what_is_drawn_now(sheet: Sheet):
    sheet.draw(((0.5, 0.1), (0.5, 0.9)))
    sheet.expect_digit("1")
    sheet.view("code")
    gone = re.compile("/(predict|readyz)")
    sheet.page.route(gone, lambda route: route.abort())
    sheet.draw()
    sheet.expect_digit(NO_DIGIT)
    expect(sheet.card(DEFAULT)).to_contain_text("No answer yet.")
    expect(sheet.page.locator("#code .note")).to_have_text("The service does not answer.")
    for name in ("#spoken", "#quick"):
        expect(sheet.page.locator(name)).to_have_text("")
    expect(sheet.page.locator("#seen")).to_be_hidden()
    expect(sheet.page.locator("#ink-box")).to_be_hidden()


def test_a_service_that_has_too_much_to_do_is_asked_again(sheet: Sheet):
    asked: list[int] = []

    def refuse_once(route: object) -> None:
        asked.append(1)
        if len(asked) > 1:
            route.continue_()
        else:
            # Long enough for the refusal to be seen.
            route.fulfill(status=429, headers={"retry-after": "3"}, json={"error": "2048 images wait"})

    sheet.page.locator("#pad").focus()
    sheet.page.route("**/predict*", refuse_once)
    sheet.upload("paper.png", encode(".png", paper()))
    expect(sheet.card(DEFAULT).locator(".error")).to_have_text("2048 images wait")
    sheet.expect_digit("7")


def test_a_service_whose_networks_are_still_loaded_is_waited_for(sheet: Sheet):
    sheet.choose("mnist-mlp")
    empty = {"default_model": DEFAULT, "models": [], "explain": True, "grpc_port": 0}
    sheet.page.route("**/models", lambda route: route.fulfill(json=empty))
    sheet.page.goto(sheet.url)
    expect(sheet.page.locator("#banner")).to_contain_text("The service has no network loaded yet.")
    sheet.page.unroute("**/models")
    expect(sheet.card("mnist-mlp")).to_be_visible()
    expect(sheet.page.locator("#banner")).to_be_hidden()


def test_a_network_that_is_no_longer_there_is_still_chosen_when_it_comes_back(sheet: Sheet, server: Server):
    sheet.choose(DEFAULT, "mnist-mlp")
    listed = json.loads(server.get("/models").content)
    less = listed | {"models": [model for model in listed["models"] if model["name"] != "mnist-mlp"]}
    sheet.page.route("**/models", lambda route: route.fulfill(json=less))
    sheet.open()
    expect(sheet.page.locator(".card")).to_have_count(1)
    sheet.page.unroute("**/models")
    sheet.open()
    expect(sheet.page.locator(".card")).to_have_count(2)


def test_a_view_that_cannot_be_fetched_comes_later(sheet: Sheet):
    sheet.page.route("**/inside.js", lambda route: route.abort())
    sheet.page.locator("#inside > summary").press("Enter")
    expect(sheet.page.locator("#banner")).to_contain_text("The service does not answer.")
    sheet.page.unroute("**/inside.js")
    expect(sheet.page.locator("#inside [role=status]")).to_have_text("Draw something first.")
    expect(sheet.page.locator("#banner")).to_be_hidden()


def test_why_it_waits_is_what_happened_last(sheet: Sheet):
    asked: list[str] = []

    def refuse(route: Any) -> None:
        asked.append(route.request.url)
        route.abort()

    sheet.page.context.set_offline(True)
    banner = sheet.page.locator("#banner")
    expect(banner).to_contain_text("This device is offline.")
    sheet.page.route(re.compile("/(models|readyz)"), refuse)
    sheet.page.context.set_offline(False)
    expect(banner).to_contain_text("The service does not answer.")
    sheet.page.evaluate(WATCH_BANNER)
    before = len(asked)
    settle_on(sheet, lambda: len(asked) >= before + 3, True)
    assert not [text for text in sheet.page.evaluate("said") if "offline" in text]


def test_what_was_read_before_the_token_was_withdrawn_is_no_answer(sheet: Sheet):
    sheet.draw(((0.5, 0.1), (0.5, 0.9)))
    sheet.expect_digit("1")
    sheet.page.route("**/predict*", lambda route: route.fulfill(status=401, json={"error": "unknown token"}))
    sheet.upload("paper.png", encode(".png", paper()))
    expect(sheet.page.locator("#access form")).to_be_visible()
    expect(sheet.page.locator("#more")).to_be_hidden()
    sheet.expect_digit(NO_DIGIT)
    expect(sheet.page.locator("#seen")).to_be_hidden()
    sheet.draw(((0.1, 0.1), (0.2, 0.1)))
    sheet.page.wait_for_timeout(500)
    expect(sheet.card(DEFAULT)).to_contain_text("No answer yet.")


def test_an_answer_that_takes_long_leaves_no_older_one_in_its_place(open_sheet: Callable[..., Sheet]):
    sheet = open_sheet(360, 740).open()
    sheet.draw()
    sheet.expect_digit("7")
    late: list[Any] = []
    sheet.page.route("**/predict*", lambda route: late.append(route))
    sheet.upload("blank.png", encode(".png", np.full((300, 300), 240, np.uint8)))
    expect(sheet.card(DEFAULT)).to_contain_text("Waiting for the answer")
    sheet.expect_digit(NO_DIGIT)
    expect(sheet.page.locator("#quick")).to_have_text("")
    settle_on(sheet, lambda: bool(late), True)
    for route in late:
        route.continue_()
    expect(sheet.card(DEFAULT).locator(".refusal")).to_contain_text("there is no ink")
