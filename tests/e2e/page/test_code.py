"""Requests to be copied, and the documentation."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.e2e.browser import Sheet, encode, expect, paper, violations
from tests.e2e.page.conftest import DEFAULT
from tests.e2e.page.steps import settle_on
from tests.e2e.server import ROOT, Server

pytestmark = pytest.mark.browser


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
    settle_on(sheet, copy, expected=True)
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


def test_the_documentation_shows_what_an_instance_does_not_offer(sheet: Sheet, server: Server):
    document = json.loads(server.get("/openapi.json").content)
    error = {"error": "explanations are switched off here"}
    responses = document["paths"]["/explain"]["get"]["responses"]
    del responses["200"]
    responses["501"] = {"description": "Not offered.", "content": {"application/json": {"example": error}}}
    sheet.page.route("**/openapi.json", lambda route: route.fulfill(json=document))
    sheet.open("/docs")
    answer = sheet.page.locator("article").nth(1).locator("details").last
    expect(answer.locator("summary")).to_have_text("Answer, status 501")
    expect(answer.locator("pre")).to_contain_text(error["error"])


def test_over_tls_the_grpc_request_speaks_tls_too(sheet: Sheet):
    folder = (sheet.page.locator("script[src]").get_attribute("src") or "").rpartition("/")[0]
    write = """async ([folder, tls]) => {
      const { grpc } = await import(`/${folder}/snippets.js`);
      return grpc("reader:8001", "mnist-cnn", new Uint8Array(784), false, tls);
    }"""
    encrypted, plain = (sheet.page.evaluate(write, [folder, tls]) for tls in (True, False))
    assert 'InferenceServerClient("reader:8001", ssl=True)' in encrypted
    assert 'InferenceServerClient("reader:8001")' in plain


COUNT = """
  window.written = 0;
  const whole = Blob.prototype.arrayBuffer;
  Blob.prototype.arrayBuffer = function () { window.written++; return whole.call(this); };
"""


def test_a_picture_that_is_written_out_is_not_written_out_again(open_sheet: Callable[..., Sheet]):
    sheet = open_sheet()
    sheet.page.add_init_script(COUNT)
    sheet.open().upload("paper.png", encode(".png", paper()))
    sheet.expect_digit("7")
    snippet = sheet.view("code").locator(".snippet").first
    expect(snippet).to_be_visible()
    before = sheet.page.evaluate("written")
    sheet.choose(DEFAULT, "mnist-mlp")
    sheet.expect_digit("7", "mnist-mlp")
    assert sheet.page.evaluate("written") == before
    expect(snippet).to_be_visible()
