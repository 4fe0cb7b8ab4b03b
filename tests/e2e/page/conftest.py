"""The real service, a browser, and the page in it. Without a browser's package its tests are skipped, not this file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.e2e.server import ROOT, Server
from tests.serving.layered_model import write_layered_model

if TYPE_CHECKING:
    from tests.e2e.browser import Browser, Sheet

MAX_BODY_BYTES = 1_000_000
DEFAULT = "mnist-cnn"


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("page") / "models"
    shutil.copytree(ROOT / "models", models)
    write_layered_model(models)
    limit = str(MAX_BODY_BYTES)
    made = Server(tmp_path_factory.mktemp("server"), models, MNIST_MAX_BODY_BYTES=limit, MNIST_DEFAULT_MODEL=DEFAULT)
    try:
        yield made.wait_ready()
    finally:
        made.kill()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    from tests.e2e.browser import open_browser

    with open_browser() as opened:
        yield opened


@pytest.fixture
def open_sheet(browser: Browser, server: Server) -> Iterator[Callable[..., Sheet]]:
    """Return a function that opens the page in a fresh profile; at the end nobody may have complained."""
    from tests.e2e.browser import Sheet

    sheets: list[Sheet] = []

    def open_one(width: int = 1280, height: int = 900, scheme: str = "light", **options: object) -> Sheet:
        profile = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **options)
        sheets.append(Sheet(profile.new_page(), server.url))
        return sheets[-1]

    yield open_one
    for sheet in sheets:
        sheet.page.context.close()
    assert [problem for sheet in sheets for problem in sheet.problems] == []


@pytest.fixture
def sheet(open_sheet: Callable[..., Sheet]) -> Sheet:
    return open_sheet().open()
