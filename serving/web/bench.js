// Convolution bench: one kernel, chosen or typed, slides over the drawing.

import { choice, labelled, make } from "./dom.js";
import { convolve, Impossible, KERNELS, multiplyAdd, outputSize, patchAt, shrink } from "./convolution.js";
import { multiplyAndAdd } from "./equation.js";
import { Maps } from "./maps.js";

const SIZES = [28, 14, 7, 4];
const OWN = "typed";

const number = (label, value, onchange) =>
  make("input", { type: "number", step: "any", value: String(value), "aria-label": label, oninput: onchange });

// What of the picture the kernel leaves out.
function remarks({ result, left_over, unreached }, kernel, stride) {
  const found = [];
  if (left_over) found.push("rounded down");
  if (unreached) found.push(`${unreached} of the pixels at the right and bottom are never reached`);
  if (stride > kernel && result > 1) found.push(`${stride - kernel} pixels between two places of the kernel are left out`);
  return found.length ? ` (${found.join("; ")})` : "";
}

export class View {
  constructor(body, session) {
    this.session = session;
    this.pixels = new Float32Array(784);
    this.name = "vertical edge";
    this.side = 3;
    this.size = 28;
    this.before = new Maps({ label: "The drawing before the convolution" });
    this.after = new Maps({ label: "The drawing after the convolution. Arrow keys choose a pixel.", onpick: (place) => this.#pick(place) });
    this.problem = make("p", { class: "error", role: "alert" });
    this.formula = make("p", { class: "equation bench-formula" });
    this.sum = make("div", { class: "bench-sum" });
    this.grid = make("div", { class: "kernel", role: "group", "aria-label": "Kernel" });
    this.beforeText = make("figcaption");
    this.afterText = make("figcaption");
    this.figures = make("div", { class: "pair" }, make("figure", {}, this.before.element, this.beforeText), make("figure", {}, this.after.element, this.afterText));
    body.append(this.#controls(), this.grid, this.problem, this.formula, this.figures, this.sum);
    this.#fillGrid();
    document.addEventListener("themechange", () => this.update());
  }

  #controls() {
    const names = [...Object.keys(KERNELS), OWN].map((name) => [name, name]);
    this.chooser = choice(names, this.name, (name) => this.#choose(name, this.side));
    const side = choice([["3", "3 × 3"], ["5", "5 × 5"]], "3", (value) => this.#choose(this.name === OWN ? "smooth" : this.name, Number(value)));
    const size = choice(SIZES.map((value) => [String(value), `${value} × ${value}`]), "28", (value) => {
      this.size = Number(value);
      this.#show();
    });
    this.padding = number("Padding", 0, () => this.#show());
    this.stride = number("Stride", 1, () => this.#show());
    return make("div", { class: "tools" }, labelled("Kernel ", this.chooser), labelled("Side ", side), labelled("Padding ", this.padding), labelled("Stride ", this.stride), labelled("Picture ", size));
  }

  #choose(name, side) {
    [this.name, this.side] = [name, side];
    this.chooser.value = name;
    if (name !== OWN) this.#fillGrid();
    this.#show();
  }

  #fillGrid() {
    this.inputs = KERNELS[this.name](this.side).map((row, y) =>
      row.map((value, x) =>
        number(`Row ${y + 1}, column ${x + 1}`, value, () => {
          this.name = this.chooser.value = OWN;
          this.#show();
        }),
      ),
    );
    this.grid.className = `kernel side-${this.side}`;
    this.grid.replaceChildren(...this.inputs.flat());
  }

  async update() {
    this.pixels = await this.#seen();
    this.#show();
  }

  // What the network sees, as intensities: 0 is paper, 1 is ink.
  async #seen() {
    const seen = document.getElementById("seen-picture");
    if (!this.session.answer) return new Float32Array(784);
    const { data } = seen.getContext("2d", { willReadFrequently: true }).getImageData(0, 0, 28, 28);
    return Float32Array.from({ length: 784 }, (_, pixel) => data[4 * pixel] / 255);
  }

  #read() {
    const kernel = this.inputs.map((row) => row.map((input) => (input.value.trim() === "" ? NaN : Number(input.value))));
    if (kernel.flat().some((value) => !Number.isFinite(value))) throw new Impossible("Every field of the kernel needs a number.");
    const [stride, padding] = [this.stride, this.padding].map((input) => (input.value.trim() === "" ? NaN : Number(input.value)));
    return { kernel, stride, padding };
  }

  #show() {
    this.sum.replaceChildren();
    try {
      this.setting = this.#read();
      const { kernel, stride, padding } = this.setting;
      const size = outputSize(this.size, kernel.length, stride, padding);
      this.values = shrink(this.pixels, 28, 28 / this.size);
      this.before.show(this.values, [1, this.size, this.size], 1);
      this.after.show(convolve(this.values, this.size, kernel, stride, padding), [1, size.result, size.result]);
      this.beforeText.textContent = `before: ${this.size} × ${this.size}`;
      this.afterText.textContent = `after: ${size.result} × ${size.result}`;
      this.formula.textContent = size.formula + remarks(size, kernel.length, stride);
      this.problem.textContent = this.session.answer ? "" : `${this.session.missing} This is blank paper.`;
      this.figures.hidden = false;
      this.after.pickAgain();
    } catch (error) {
      if (!(error instanceof Impossible)) throw error;
      this.problem.textContent = error.message;
      this.formula.textContent = "";
      this.figures.hidden = true;
    }
  }

  #pick([, row, column]) {
    const { kernel, stride, padding } = this.setting;
    const { patch, box } = patchAt(this.values, this.size, kernel.length, stride, padding, row, column);
    this.before.unmark();
    this.before.highlight(0, box);
    this.sum.replaceChildren(multiplyAndAdd({ map: 0, patch, kernel, sum: multiplyAdd(patch, kernel) }, "the drawing"));
  }
}
