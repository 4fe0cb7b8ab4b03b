// Occlusion map: a square of paper covers each part of the drawing in turn; where the answer changes, it hung on that part.

import * as api from "./api.js";
import { Chooser } from "./chooser.js";
import { make, percent } from "./dom.js";
import { Live, persist } from "./live.js";
import { Maps } from "./maps.js";

export class View {
  constructor(body, session) {
    this.session = session;
    this.live = new Live((signal) => persist(() => this.#ask(signal), (why) => this.#hide(why), signal));
    this.chooser = new Chooser(() => this.update());
    this.note = make("p", { class: "note", role: "status" });
    this.drop = new Maps({ label: "How much covering each pixel lowers or raises the probability. Arrow keys choose a pixel.", onpick: (place) => this.#pick(place) });
    this.drawing = new Maps({ label: "The drawing, 28 by 28 pixels" });
    this.text = make("p", { class: "occlusion-text", "aria-live": "polite" });
    this.summary = make("p");
    const figure = (maps, caption) => make("figure", {}, maps.element, make("figcaption", {}, caption));
    this.figures = make("div", { class: "pair", hidden: true }, figure(this.drawing, "what the network sees"), figure(this.drop, "orange: the answer hangs on this part; blue: without it the answer is surer"));
    body.append(this.chooser.element, this.note, this.summary, this.figures, this.text);
    document.addEventListener("themechange", () => this.answer && this.#show(this.answer));
  }

  update() {
    const { models } = this.session.service;
    this.chooser.offer(models.map(({ name }) => name), this.session.chosen[0]?.name ?? models[0].name);
    if (this.session.blob) return this.live.touch();
    this.live.cancel();
    this.#hide("Draw something first.");
  }

  #hide(why) {
    this.answer = null;
    this.note.textContent = why;
    this.figures.hidden = true;
    this.summary.textContent = this.text.textContent = "";
  }

  async #ask(signal) {
    const answer = await api.explain(this.session.blob, this.chooser.value, "occlusion", signal);
    signal.throwIfAborted();
    this.#show(answer);
    this.note.textContent = "";
  }

  #show(answer) {
    this.answer = answer;
    const { cover_side: side, probabilities, map } = answer.occlusion;
    this.whole = probabilities;
    this.digit = probabilities.indexOf(Math.max(...probabilities));
    this.covered = api.floats(map.data);
    const drops = Float32Array.from({ length: 784 }, (_, pixel) => probabilities[this.digit] - this.covered[10 * pixel + this.digit]);
    const changes = Array.from({ length: 784 }, (_, pixel) => this.#readAt(pixel)).filter((digit) => digit !== this.digit);
    const others = [...new Set(changes)].sort().join(", ");
    this.summary.textContent = `A ${side} × ${side} square of paper on each pixel. Uncovered: ${this.digit}, ${percent(probabilities[this.digit])}. ` + (changes.length ? `${changes.length} of 784 places change the answer, to ${others}.` : "No single place changes the answer.");
    this.figures.hidden = false;
    this.drawing.show(Float32Array.from(answer.pixels.flat()), [1, 28, 28]);
    this.drop.show(drops, [1, 28, 28], Math.max(0.05, ...drops.map(Math.abs)));
    this.drop.pickAgain();
  }

  #readAt(pixel) {
    const row = this.covered.subarray(10 * pixel, 10 * pixel + 10);
    return row.indexOf(Math.max(...row));
  }

  #pick([, row, column]) {
    const pixel = 28 * row + column;
    const digit = this.#readAt(pixel);
    const reach = (this.answer.occlusion.cover_side - 1) / 2;
    this.drawing.unmark();
    this.drawing.highlight(0, { top: row - reach, left: column - reach, height: 2 * reach + 1, width: 2 * reach + 1 });
    this.text.textContent = `Row ${row}, column ${column} covered: ${digit}, ${percent(this.covered[10 * pixel + digit])}; ${this.digit} has ${percent(this.covered[10 * pixel + this.digit])}.`;
  }
}
