"""What the page keeps in the browser, and a browser that keeps nothing."""

from collections.abc import Callable

import pytest

from tests.e2e.browser import Sheet, expect
from tests.e2e.page.conftest import DEFAULT

pytestmark = pytest.mark.browser

REFUSE = """
  for (const place of ["localStorage", "sessionStorage"])
    Object.defineProperty(window, place, { get: () => { throw new DOMException("denied", "SecurityError"); } });
"""
FOREIGN = 'localStorage.setItem("models", "{no"); localStorage.setItem("theme", "toString");'
ANOTHER = 'localStorage.setItem("models", "5");'


@pytest.mark.parametrize("script", [REFUSE, FOREIGN, ANOTHER])
def test_the_page_works_whatever_the_browser_keeps(open_sheet: Callable[..., Sheet], script: str):
    sheet = open_sheet()
    sheet.page.add_init_script(script)
    sheet.open()
    expect(sheet.card(DEFAULT)).to_be_visible()
    expect(sheet.page.locator("#theme")).to_have_text("Theme: system")
    sheet.page.locator("#theme").click()
    expect(sheet.page.locator("#theme")).to_have_text("Theme: light")
