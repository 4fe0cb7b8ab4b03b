"""Models that are exchanged or taken away while the page is open."""

import json

import pytest

from tests.e2e.browser import Sheet, expect
from tests.e2e.page.conftest import DEFAULT
from tests.e2e.server import Server

pytestmark = pytest.mark.browser


@pytest.fixture
def listed(sheet: Sheet, server: Server) -> list[dict[str, object]]:
    """Return what the service says that it has, one for each time that it is asked; the last for good."""
    real = json.loads(server.get("/models").content)
    answers: list[dict[str, object]] = [real]
    sheet.page.route("**/models", lambda route: route.fulfill(json=answers.pop(0) if len(answers) > 1 else answers[0]))
    return answers


def with_version(content: dict[str, object], version: str, accuracy: float) -> dict[str, object]:
    models = [dict(model) for model in content["models"]]
    next(model for model in models if model["name"] == DEFAULT).update(version=version, test_accuracy=accuracy)
    return content | {"models": models}


def test_a_card_names_the_version_that_answers(sheet: Sheet, listed: list[dict[str, object]]):
    listed.insert(0, with_version(listed[0], "1", 0.5))
    sheet.open()
    about = sheet.card(DEFAULT).locator("small")
    expect(about).to_have_text("version 1 \u00b7 50.00 % of MNIST")
    sheet.draw()
    expect(about).to_contain_text("version 2 \u00b7 99.")
    sheet.expect_digit("7")


def test_a_list_that_stays_behind_is_asked_for_once(sheet: Sheet, listed: list[dict[str, object]]):
    listed[0] = with_version(listed[0], "1", 0.5)
    asked: list[str] = []
    sheet.open()
    sheet.page.on("request", lambda request: asked.append(request.url))
    for _ in range(3):
        sheet.draw()
        sheet.expect_digit("7")
        sheet.page.wait_for_timeout(300)
    assert sum(url.endswith("/models") for url in asked) == 1


def test_a_network_that_is_gone_leaves_the_page(sheet: Sheet, listed: list[dict[str, object]]):
    real = listed[0]
    listed.append(real | {"models": [model for model in real["models"] if model["name"] != "mnist-mlp"]})
    gone = {"error": "no model 'mnist-mlp'"}
    sheet.page.route("**/predict?model=mnist-mlp*", lambda route: route.fulfill(status=404, json=gone))
    sheet.open()
    sheet.choose(DEFAULT, "mnist-mlp")
    sheet.draw()
    expect(sheet.card("mnist-mlp")).to_have_count(0)
    sheet.expect_digit("7")


def test_a_network_that_is_loaded_later_is_offered_inside(sheet: Sheet, server: Server):
    listed = json.loads(server.get("/models").content)
    sheet.page.route("**/models", lambda route: route.fulfill(json=listed | {"models": listed["models"][:2]}))
    sheet.open().draw()
    options = sheet.view("inside").locator("select option")
    expect(options).to_have_count(2)
    sheet.page.unroute("**/models")
    sheet.page.context.set_offline(True)
    expect(sheet.page.locator("#banner")).to_be_visible()
    sheet.page.context.set_offline(False)
    expect(sheet.page.locator("#models input")).to_have_count(len(listed["models"]))
    expect(options).to_have_count(len(listed["models"]))
