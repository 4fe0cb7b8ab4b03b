"""The views of the inside: every layer, and the occlusion map."""

import json
import re
from functools import partial
from typing import Any

import numpy as np
import pytest

from tests.e2e.browser import Sheet, expect
from tests.e2e.page.steps import MINUS, ROUNDED, choose_layered, number, settle_on
from tests.e2e.server import ROOT, Server
from tests.serving.layered_model import expected_layers, weights

pytestmark = pytest.mark.browser


def pick(sheet: Sheet, layer: str, *keys: str) -> None:
    maps = sheet.page.locator(f'[data-layer="{layer}"] canvas.maps').first
    maps.focus()
    for key in keys:
        maps.press(key)


def test_the_inside_shows_what_numpy_computes(sheet: Sheet):
    choose_layered(sheet)
    view = sheet.view("inside")
    expect(view.locator(".layer")).to_have_count(6)
    expect(view.locator('[data-layer="conv"]')).to_contain_text("(28 + 2*0 - 5)//1 + 1 = 24")
    expected = expected_layers(sheet.seen())
    pick(sheet, "conv", "PageDown", *["ArrowRight"] * 9, *["ArrowDown"] * 7)
    inspector = view.locator(".inspector")
    expect(inspector.locator("h4")).to_contain_text("conv, map 1, row 7, column 9")
    assert number(inspector.locator("h4").text_content()) == pytest.approx(expected["conv"][1, 7, 9], abs=ROUNDED)
    tables = [
        np.array(
            [
                [number(cell + ".0" if "." not in cell else cell) for cell in row.locator("td").all_text_contents()]
                for row in table.locator("tr").all()
            ]
        )
        for table in inspector.locator("table.numbers").all()
    ]
    patch = expected["normalize"][0, 7:12, 9:14]
    kernel = weights()["conv.weight"][1, 0]
    for found, right in zip(tables, (patch, kernel, patch * kernel), strict=True):
        np.testing.assert_allclose(found, right, atol=ROUNDED)
    sheet.screenshot("inside-light")


def error_of(sheet: Sheet, layer: str) -> float:
    """Return by how much the second value of a layer, as it is shown, differs from what the picture gives."""
    value: float = expected_layers(sheet.seen())[layer].reshape(-1)[1]
    return number(sheet.view("inside").locator(".inspector h4").text_content()) - value


def test_every_kind_of_layer_says_how_a_value_came_about(sheet: Sheet):
    choose_layered(sheet)
    inspector = sheet.view("inside").locator(".inspector")
    for layer, text in {
        "normalize": f"(x / 255 {MINUS} 0.1307) / 0.3081, x =",
        "pool": "the largest is",
        "relu": "max(0, x), x =",
        "flatten": "position 1 is map 0, row 0, column 1",
        "linear": "The strongest of 432 products",
    }.items():
        pick(sheet, layer, "ArrowRight")
        expect(inspector).to_contain_text(text)
        # The picture may be that of the whole line only now, and the text that of the place before.
        settle_on(sheet, partial(error_of, sheet, layer), pytest.approx(0, abs=ROUNDED), what=layer)


# Work out values from the terms that the page shows, at 20 places of each layer, and return the largest difference.
WORK_OUT = """async ([folder, model]) => {
  const { Network } = await import(`${folder}/network.js`);
  const api = await import(`${folder}/api.js`);
  const network = new Network(await api.describe(model));
  const seen = document.getElementById("seen-picture");
  const blob = await new Promise((resolve) => seen.toBlob(resolve, "image/png"));
  network.fill(await api.explain(blob, model, "layers"));
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const right = {
    products: ({ terms, bias }) => sum(terms.map((term) => term.sum)) + bias,
    weighted: ({ products, bias }) => sum(products.map(({ product }) => product)) + bias,
    largest: ({ terms }) => Math.max(...terms[0].patch.flat()),
    mean: ({ terms }) => sum(terms[0].patch.flat()) / terms[0].patch.flat().length,
    subsampling: ({ terms, factor, bias }) => sum(terms[0].patch.flat()) * factor + bias,
    scaled: ({ before, factor, bias }) => before * factor + bias,
    function: ({ before }, layer) => ({
      ReLU: Math.max(0, before),
      ScaledTanh: 1.7159 * Math.tanh((before * 2) / 3),
      normalize: (before / 255 - 0.1307) / 0.3081,
    })[layer.kind],
    text: ({ pixel, value, source }) => {
      if (!pixel) return value;
      const [, height, width] = network.extent(network.byName.get(source));
      return network.values.get(source).values[(pixel[0] * height + pixel[1]) * width + pixel[2]];
    },
  };
  const differences = {};
  for (const layer of network.layers) {
    const [maps, height, width] = network.extent(layer);
    for (let number = 0; number < 20; number++) {
      const index = Math.floor((number / 20) * maps * height * width);
      const place = [Math.floor(index / (height * width)), Math.floor(index / width) % height, index % width];
      const explained = network.explain(layer, place);
      const difference = Math.abs(right[explained.kind](explained, layer) - explained.value);
      differences[layer.name] = Math.max(differences[layer.name] ?? 0, difference);
    }
  }
  return differences;
}"""


def test_the_terms_shown_give_the_value_in_every_layer_of_every_network(sheet: Sheet, server: Server):
    sheet.draw()
    sheet.expect_digit("7")
    script = sheet.page.locator("script[src]").get_attribute("src") or ""
    models = {model["name"] for model in json.loads(server.get("/models").content)["models"] if model["layers"]}
    assert models == {path.name for path in (ROOT / "models").iterdir() if path.is_dir()} | {"layered"}
    for model in models - {"layered"}:  # its picture is not normalised
        differences = sheet.page.evaluate(WORK_OUT, ["/" + script.rpartition("/")[0], model])
        assert max(differences.values()) < 1e-3, (model, differences)


def test_pointing_at_a_value_frames_what_it_was_made_of(sheet: Sheet):
    choose_layered(sheet)
    view = sheet.view("inside")
    maps = view.locator('[data-layer="conv"] canvas.maps').first
    maps.hover(position={"x": 30, "y": 30})
    expect(view.locator(".inspector h4")).to_contain_text("conv, map 0")
    frame = view.locator('[data-layer="normalize"] .mark:not(.picked)')
    expect(frame).to_have_count(1)
    width = frame.evaluate("mark => parseFloat(mark.style.width)")
    assert width == pytest.approx(100 * 5 / 28, abs=1e-3)


def test_the_inside_follows_the_drawing(sheet: Sheet):
    choose_layered(sheet)
    view = sheet.view("inside")
    pick(sheet, "conv", *["ArrowDown"] * 5, *["ArrowRight"] * 9)
    before = view.locator(".inspector").get_attribute("data-value")
    sheet.page.locator("#clear").click()
    sheet.draw(((0.5, 0.1), (0.5, 0.9)))
    expect(view.locator(".inspector")).not_to_have_attribute("data-value", before or "")
    row, column = 5, 9
    head = view.locator(".inspector h4")
    expect(head).to_contain_text(f"row {row}, column {column}")

    def error() -> float:
        value: float = expected_layers(sheet.seen())["conv"][0, row, column]
        return number(head.text_content()) - value

    # The answers that came while the line was drawn show a part of it.
    settle_on(sheet, error, pytest.approx(0, abs=ROUNDED))


def test_the_occlusion_map_says_what_covering_changes(sheet: Sheet):
    choose_layered(sheet)
    view = sheet.view("occlusion")
    maps = view.locator('canvas.maps[role="application"]')
    expect(maps).to_be_visible()
    maps.focus()
    for key in ["ArrowRight"] * 12 + ["ArrowDown"] * 14:
        maps.press(key)
    covered = sheet.seen()
    covered[12:17, 10:15] = 0
    logits = expected_layers(covered)["linear"]
    share = 100 * np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    text = view.locator(".occlusion-text").text_content() or ""
    found = re.match(r"Row 14, column 12 covered: (\d), >?([\d.]+) %", text)
    assert found, text
    assert int(found[1]) == logits.argmax()
    assert float(found[2]) == pytest.approx(share.max(), abs=0.11)
    sheet.screenshot("occlusion-light")


@pytest.mark.parametrize(("name", "shown"), [("inside", ".layer"), ("occlusion", ".pair")])
def test_what_was_cleared_does_not_come_back(sheet: Sheet, name: str, shown: str):
    choose_layered(sheet)
    view = sheet.view(name)
    expect(view.locator(shown).first).to_be_visible()
    late: list[Any] = []
    sheet.page.route("**/explain*", lambda route: late.append(route))
    sheet.draw(((0.5, 0.1), (0.5, 0.9)))
    settle_on(sheet, lambda: bool(late), True)
    sheet.page.locator("#clear").click()
    note = view.locator("[role=status]")
    expect(note).to_have_text("Draw something first.")
    for route in late:
        route.continue_()
    sheet.page.wait_for_timeout(700)
    expect(note).to_have_text("Draw something first.")
    expect(view.locator(shown).first).to_be_hidden()


def test_a_network_that_is_described_after_the_drawing_is_gone_is_no_error(sheet: Sheet):
    choose_layered(sheet)
    described: list[Any] = []
    sheet.page.route("**/explain?model=layered", lambda route: described.append(route))
    view = sheet.view("inside")
    settle_on(sheet, lambda: bool(described), True)
    sheet.page.locator("#clear").click()
    expect(view.locator("[role=status]")).to_have_text("Draw something first.")
    described[0].continue_()
    sheet.page.wait_for_timeout(700)
    expect(view.locator("[role=status]")).to_have_text("Draw something first.")


def test_a_value_between_two_layers_says_what_it_may_be(sheet: Sheet):
    sheet.choose("mnist-resnet")
    sheet.draw()
    sheet.expect_digit("7", "mnist-resnet")
    inspector = sheet.view("inside").locator(".inspector")
    pick(sheet, "block1.conv2.conv.input")
    expect(inspector).to_contain_text("such as max(0, x) of the one before or of its sum with a shortcut")


@pytest.mark.parametrize("name", ["inside", "occlusion"])
def test_another_network_can_be_chosen_before_anything_is_drawn(sheet: Sheet, name: str):
    view = sheet.view(name)
    view.get_by_label("Network").select_option("layered")
    sheet.page.wait_for_timeout(700)
    expect(view.locator("[role=status]")).to_have_text("Draw something first.")
