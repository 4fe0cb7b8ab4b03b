// How one value came about, as a person would work it out on paper.

import { decimal, make } from "./dom.js";
import { numbers } from "./maps.js";

const MOST_PRODUCTS = 12;

const line = (...parts) => make("p", { class: "equation" }, parts.join(" "));
const signed = (value) => (value < 0 ? `− ${decimal(-value)}` : `+ ${decimal(value)}`);
const product = (one, other) => one.map((row, y) => row.map((value, x) => (value ?? 0) * other[y][x]));

// Patch × kernel = products, and their sum: the «multiply and add» of a convolution.
export function multiplyAndAdd({ map, patch, kernel, sum }, source) {
  const sign = (text) => make("span", { class: "sign", "aria-hidden": "true" }, text);
  return make(
    "div",
    { class: "multiply" },
    numbers(patch, `patch of ${source}, map ${map}`),
    sign("×"),
    numbers(kernel, "kernel"),
    sign("="),
    numbers(product(patch, kernel), `products, sum ${decimal(sum)}`),
  );
}

function products({ terms, bias, value }, source) {
  const strongest = terms.reduce((best, term) => (Math.abs(term.sum) > Math.abs(best.sum) ? term : best));
  const shown = make("div", {}, multiplyAndAdd(strongest, source));
  const sums = terms.map((term) =>
    make("button", { type: "button", class: "term", onclick: () => shown.replaceChildren(multiplyAndAdd(term, source)) }, `map ${term.map}: ${decimal(term.sum)}`),
  );
  const total = terms.reduce((sum, term) => sum + term.sum, 0);
  return [
    shown,
    terms.length > 1 ? make("div", { class: "terms" }, make("span", {}, "Sum over the incoming maps:"), sums) : null,
    line(`${decimal(total)} ${signed(bias)} (bias) = ${decimal(value)}`),
  ];
}

function weighted({ products: all, sum, bias, value }) {
  const rows = all.slice(0, MOST_PRODUCTS).map(({ position, value: given, factor, product: result }) =>
    make("tr", {}, [String(position), decimal(given), decimal(factor), decimal(result)].map((text) => make("td", {}, text))),
  );
  const head = make("tr", {}, ["position", "value", "× weight", "= product"].map((text) => make("th", { scope: "col" }, text)));
  const rest = all.slice(MOST_PRODUCTS).reduce((total, each) => total + each.product, 0);
  return [
    make("table", { class: "products" }, make("caption", {}, `The strongest of ${all.length} products`), make("thead", {}, head), make("tbody", {}, rows)),
    rest ? line(`the other ${all.length - MOST_PRODUCTS} together: ${decimal(rest)}`) : null,
    line(`${decimal(sum)} ${signed(bias)} (bias) = ${decimal(value)}`),
  ];
}

const FORMS = {
  products,
  weighted,
  largest: ({ terms: [{ map, patch }], value }, source) => [numbers(patch, `patch of ${source}, map ${map}`, (each) => each === value), line(`the largest is ${decimal(value)}`)],
  mean: ({ terms: [{ map, patch }], value }, source) => [numbers(patch, `patch of ${source}, map ${map}`), line(`their mean is ${decimal(value)}`)],
  subsampling: ({ terms: [{ map, patch }], factor, bias, value }, source) => [
    numbers(patch, `patch of ${source}, map ${map}`),
    line(`their sum ${decimal(patch.flat().reduce((sum, each) => sum + each, 0))} × ${decimal(factor)} ${signed(bias)} = ${decimal(value)}`),
  ],
  scaled: ({ before, factor, bias, value }) => [line(`${decimal(before)} × ${decimal(factor)} ${signed(bias)} = ${decimal(value)}`)],
  function: ({ formula, before, value }) => [line(before === null ? `${formula} = ${decimal(value)}` : `${formula}, x = ${decimal(before)}: ${decimal(value)}`)],
  text: ({ text, value }) => [line(`${text}: ${decimal(value)}`)],
};

export function equation(explained, layer) {
  const [map, row, column] = explained.place;
  const where = layer.output_shape.length === 3 ? `map ${map}, row ${row}, column ${column}` : `position ${column}`;
  return [
    make("h4", {}, `${layer.name}, ${where}: ${decimal(explained.value)}`),
    ...FORMS[explained.kind](explained, layer.source ?? "the picture").filter(Boolean),
  ];
}
