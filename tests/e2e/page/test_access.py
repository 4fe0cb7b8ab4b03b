"""The page and the documentation of a service that wants a token."""

import json
import shutil
import subprocess
from collections.abc import Callable

import pytest

from tests.e2e.browser import Sheet, expect, violations
from tests.e2e.conftest import Start
from tests.e2e.page.conftest import DEFAULT
from tests.e2e.server import Server, wait_until

pytestmark = pytest.mark.browser

TOKEN = "right"


@pytest.fixture(scope="module")
def server(start: Start) -> Server:
    started = start(MNIST_TOKEN=TOKEN)
    wait_until(lambda: (answer := started.get("/readyz")) and answer.status_code == 200)
    return started


def give(sheet: Sheet, token: str) -> None:
    sheet.page.get_by_label("Token").fill(token)
    sheet.page.get_by_role("button", name="Go on").click()


def test_the_page_asks_for_the_token_and_keeps_it_for_the_tab(open_sheet: Callable[..., Sheet]):
    sheet = open_sheet()
    asked: list[str] = []
    sheet.page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    sheet.page.goto(sheet.url)
    alert = sheet.page.locator("#access [role=alert]")
    expect(alert).to_have_text("This service answers those who have a token.")
    expect(sheet.page.locator("#banner")).to_be_hidden()
    assert violations(sheet.page) == []
    sheet.draw()
    give(sheet, "wrong")
    expect(alert).to_have_text("The service does not know this token.")
    sheet.page.wait_for_timeout(1500)
    assert [each for each in asked if each in ("models", "readyz") or each.startswith("predict")] == ["models"] * 2
    give(sheet, TOKEN)
    expect(sheet.card(DEFAULT).locator(".time")).to_contain_text("Answered in")
    expect(sheet.page.locator("#access form")).to_have_count(0)
    sheet.open()
    expect(sheet.page.locator("#access form")).to_have_count(0)
    assert TOKEN not in sheet.page.evaluate("Object.values(localStorage).join()")


def test_a_token_that_is_withdrawn_is_asked_for_anew(open_sheet: Callable[..., Sheet]):
    sheet = open_sheet()
    sheet.page.goto(sheet.url)
    give(sheet, TOKEN)
    expect(sheet.card(DEFAULT)).to_be_visible()
    sheet.page.route("**/predict*", lambda route: route.fulfill(status=401, json={"error": "unknown token"}))
    sheet.draw()
    expect(sheet.page.locator("#access [role=alert]")).to_have_text("The service does not know this token.")
    sheet.page.unroute("**/predict*")
    give(sheet, TOKEN)
    expect(sheet.card(DEFAULT).locator(".time")).to_contain_text("Answered in")


def test_requests_to_copy_take_the_token_from_the_environment(open_sheet: Callable[..., Sheet]):
    sheet = open_sheet()
    sheet.page.goto(sheet.url)
    give(sheet, TOKEN)
    sheet.page.locator("#bench summary").wait_for()
    sheet.draw()
    expect(sheet.card(DEFAULT).locator(".time")).to_contain_text("Answered in")
    shown = sheet.view("code").locator("pre")
    expect(shown).to_have_count(3)
    texts = shown.all_text_contents()
    assert all("Bearer" in text and "TOKEN" in text and TOKEN not in text for text in texts)
    if shutil.which("curl"):
        command = {"args": ["sh"], "input": texts[0], "env": {"TOKEN": TOKEN, "PATH": "/usr/bin:/bin"}, "timeout": 60}
        answer = subprocess.run(**command, capture_output=True, text=True, check=True).stdout
        assert len(json.loads(answer)["predictions"]) == 1
    compile(texts[1], "python", "exec")
    compile(texts[2], "grpc", "exec")


def test_the_documentation_asks_for_the_token_and_shows_where_it_goes(open_sheet: Callable[..., Sheet]):
    sheet = open_sheet()
    sheet.page.goto(sheet.url + "/docs")
    give(sheet, "wrong")
    expect(sheet.page.locator("#docs [role=alert]")).to_have_text("The service does not know this token.")
    give(sheet, TOKEN)
    expect(sheet.page.locator("article")).to_have_count(10)
    predict, *_, livez, _ = sheet.page.locator("article").all()
    assert '-H "Authorization: Bearer $TOKEN"' in (predict.locator("pre").first.text_content() or "")
    assert "Authorization" not in (livez.locator("pre").first.text_content() or "")
    sheet.page.locator("#openapi").click()
    expect(sheet.page.locator("body")).to_contain_text('"openapi":"3.1.0"')
