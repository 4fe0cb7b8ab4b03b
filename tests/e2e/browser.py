"""A browser, the page in it, and pictures to give it."""

import gzip
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

try:
    from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
except ImportError as missing:
    if os.environ.get("CI"):
        raise
    pytest.skip(f"no browser: {missing}", allow_module_level=True)

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
# The first has no windows and takes half the processor time for the same page.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
OPTIONS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]

# Deque's accessibility checker, from the npm package axe-core, under the Mozilla Public License 2.0.
AXE = Path(__file__).parent / "axe" / "axe-core-4.14.1.min.js.gz"

# How long the page may take for a step on a busy machine; what is there already is not waited for.
LIMIT_MS = 120_000
expect.set_options(timeout=LIMIT_MS)

# A 7 on a sheet of side 1.
SEVEN = ((0.28, 0.22), (0.72, 0.22), (0.42, 0.85))


def find_chromium() -> str:
    """Return where Chromium is; without one, the test skips, or fails in CI."""
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None:
        message = f"no browser: none of {', '.join(NAMES)} is installed"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return found


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Yield Chromium."""
    path = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=OPTIONS)
        yield browser
        browser.close()


def violations(page: Page) -> list[str]:
    """Return what axe-core finds in the way of people with disabilities."""
    page.evaluate(gzip.decompress(AXE.read_bytes()).decode("utf-8"))
    found = page.evaluate("axe.run().then((results) => results.violations)")
    return [f"{each['id']}: {[node['target'] for node in each['nodes']]}" for each in found]


class Sheet:
    """The page, as a person uses it.

    Attributes:
        problems: what the console and the page complained of, and requests to elsewhere.
    """

    def __init__(self, page: Page, url: str):
        self.page, self.url = page, url
        page.set_default_timeout(LIMIT_MS)
        self.problems: list[str] = []
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", self._note_address)

    def _note(self, message: Any) -> None:
        # The browser itself reports each answer that is no success; the page says it in words.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.problems.append(message.text)

    def _note_address(self, request: Any) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.problems.append(f"a request to {request.url}")

    def open(self, path: str = "/") -> "Sheet":
        self.page.goto(self.url + path)
        if path == "/":
            expect(self.page.locator(".card").first).to_be_visible()
        return self

    def draw(self, points: tuple[tuple[float, float], ...] = SEVEN) -> None:
        """Draw one stroke by mouse, through points on a sheet of side 1."""
        pad = self.page.locator("#pad")
        pad.scroll_into_view_if_needed()
        area = pad.bounding_box()
        assert area is not None
        places = [(area["x"] + x * area["width"], area["y"] + y * area["height"]) for x, y in points]
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*place, steps=8)
        self.page.mouse.up()

    def card(self, model: str) -> Locator:
        return self.page.locator(f'.card[data-model="{model}"]')

    def expect_digit(self, digit: str, model: str = "mnist-cnn") -> None:
        expect(self.card(model).locator(".digit")).to_have_text(digit)

    def upload(self, name: str, content: bytes, media_type: str = "application/octet-stream") -> None:
        self.page.locator("#file").set_input_files({"name": name, "mimeType": media_type, "buffer": content})

    def choose(self, *models: str) -> None:
        """Check these networks and no others."""
        for box in self.page.locator("#models input").all():
            box.set_checked(box.get_attribute("value") in models)

    def view(self, name: str) -> Locator:
        """Open one of the views below and return it."""
        view = self.page.locator(f"#{name}")
        if view.get_attribute("open") is None:
            # By keyboard: what arrives in a view above moves this one from under a pointer.
            view.locator("> summary").press("Enter")
        expect(view.locator(".body > *").first).to_be_attached()
        return view

    def seen(self) -> np.ndarray:
        """Return the 28x28 picture that the network saw, from the page: uint8."""
        pixels = self.page.evaluate(
            """() => Array.from(document.getElementById("seen-picture")
                .getContext("2d").getImageData(0, 0, 28, 28).data)"""
        )
        return np.array(pixels, np.uint8).reshape(28, 28, 4)[:, :, 0]

    def screenshot(self, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def paper(ink: int = 20, ground: int = 240, side: int = 300) -> np.ndarray:
    """Return a picture of a 7: uint8 (side, side)."""
    picture = np.full((side, side), ground, np.uint8)
    points = np.array([[round(x * side), round(y * side)] for x, y in SEVEN])
    cv2.polylines(picture, [points], False, ink, thickness=side // 14, lineType=cv2.LINE_AA)
    return picture


def encode(suffix: str, picture: np.ndarray) -> bytes:
    return cv2.imencode(suffix, picture)[1].tobytes()


def transparent() -> np.ndarray:
    """Return black ink on nothing: uint8 (300, 300, 4)."""
    picture = np.zeros((300, 300, 4), np.uint8)
    picture[:, :, 3] = 255 - paper(ink=0, ground=255)
    return picture


def small() -> np.ndarray:
    """Return a 7 in MNIST's form: uint8 (28, 28), light on dark."""
    return cv2.resize(255 - paper(ink=0, ground=255), (28, 28), interpolation=cv2.INTER_AREA)


PICTURES = {
    "photo.jpg": encode(".jpg", np.dstack([paper(70, 190)] * 3)),
    "chalk.png": encode(".png", paper(ink=230, ground=40)),
    "transparent.png": encode(".png", transparent()),
    "scan.tiff": encode(".tiff", paper()),
    "small.png": encode(".png", small()),
    "picture.bmp": encode(".bmp", paper()),
    "picture.webp": encode(".webp", paper()),
}
