// Pictures of numbers: maps side by side in one canvas, zero in the colour of the ground.

import { decimal, hasModifier, make } from "./dom.js";

const POSITIVE = [200, 80, 10];
const NEGATIVE = [40, 100, 220];
const GAP = 1;

// What a key adds to map, row and column.
const MOVES = {
  ArrowLeft: [0, 0, -1],
  ArrowRight: [0, 0, 1],
  ArrowUp: [0, -1, 0],
  ArrowDown: [0, 1, 0],
  PageUp: [-1, 0, 0],
  PageDown: [1, 0, 0],
};

const blend = (from, to, share) => from.map((start, channel) => Math.round(start + (to[channel] - start) * share));

// Screen pixels for one value, at least: small maps can be larger.
const leastZoom = (width) => (width >= 20 ? 2.8 : width >= 10 ? 4 : 6);

function groundOf(element) {
  return getComputedStyle(element).backgroundColor.match(/[\d.]+/g).slice(0, 3).map(Number);
}

// `values` are float32, maps × height × width. `onpick([map, row, column])` hears of hovering, tapping and arrow keys,
// `onenter()` of Enter. `held` is shared by the maps of which one value is held.
export class Maps {
  constructor({ label, onpick = null, onenter = null, held = { by: null }, columns = null, widest = 20 }) {
    this.canvas = make("canvas", { class: "pixels maps", role: onpick ? "application" : "img", tabindex: onpick ? 0 : null, "aria-label": label });
    this.marks = [];
    this.picked = make("div", { class: "mark picked", hidden: true });
    this.element = make("div", { class: "maps-frame" }, this.canvas, this.picked);
    this.onpick = onpick;
    this.onenter = onenter;
    this.held = held;
    this.columns = columns;
    this.widest = widest;
    this.place = null;
    if (onpick) this.#connect();
  }

  show(values, [maps, height, width], scale = null) {
    this.extent = [maps, height, width];
    // A row of features, or maps of one value each, are laid out as lines of values.
    this.wraps = height === 1 && (maps === 1 || width === 1);
    const count = maps * height * width;
    // A figure in a row of them is only as wide as what it showed before.
    const room = (this.element.closest(".pair") ?? this.element.parentElement)?.clientWidth || 320;
    const fitting = Math.max(1, Math.floor(room / ((width + GAP) * leastZoom(width))));
    this.perRow = this.wraps ? Math.min(count, 32) : this.columns ?? Math.min(maps, this.widest, fitting);
    this.canvas.width = this.wraps ? this.perRow : this.perRow * (width + GAP) - GAP;
    this.canvas.height = this.wraps ? Math.ceil(count / this.perRow) : Math.ceil(maps / this.perRow) * (height + GAP) - GAP;
    this.element.style.width = `${this.canvas.width * this.#zoom(room)}px`;
    this.#paint(values, scale ?? values.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-9));
  }

  #zoom(room) {
    if (this.wraps) return this.canvas.width <= 10 ? 28 : 16;
    return Math.max(1, Math.min(room / this.canvas.width, this.extent[0] === 1 ? 8 : 12));
  }

  #paint(values, most) {
    const pen = this.canvas.getContext("2d");
    const image = pen.createImageData(this.canvas.width, this.canvas.height);
    const ground = groundOf(this.canvas);
    const [maps, height, width] = this.extent;
    for (let index = 0; index < maps * height * width; index++) {
      const [x, y] = this.#pixel([Math.floor(index / (height * width)), Math.floor(index / width) % height, index % width]);
      const value = values[index] / most;
      const colour = blend(ground, value > 0 ? POSITIVE : NEGATIVE, Math.min(1, Math.abs(value)));
      image.data.set([...colour, 255], 4 * (y * this.canvas.width + x));
    }
    pen.putImageData(image, 0, 0);
  }

  #pixel([map, row, column]) {
    const [, height, width] = this.extent;
    const index = map + column;
    if (this.wraps) return [index % this.perRow, Math.floor(index / this.perRow)];
    return [(map % this.perRow) * (width + GAP) + column, Math.floor(map / this.perRow) * (height + GAP) + row];
  }

  #placeAt(x, y) {
    const [maps, height, width] = this.extent;
    if (this.wraps) return this.#wrapped(y * this.perRow + x);
    // A gap belongs to the map before it.
    const [column, row] = [Math.min(width - 1, x % (width + GAP)), Math.min(height - 1, y % (height + GAP))];
    const map = Math.floor(y / (height + GAP)) * this.perRow + Math.floor(x / (width + GAP));
    return map < maps ? [map, row, column] : null;
  }

  // The place of the value with this number in lines of values.
  #wrapped(index) {
    const [maps, , width] = this.extent;
    if (index < 0 || index >= maps * width) return null;
    return maps === 1 ? [0, 0, index] : [index, 0, 0];
  }

  #connect() {
    const point = (event) => {
      const area = this.canvas.getBoundingClientRect();
      const place = this.#placeAt(
        Math.floor(((event.clientX - area.left) / area.width) * this.canvas.width),
        Math.floor(((event.clientY - area.top) / area.height) * this.canvas.height),
      );
      if (place) this.pick(place);
    };
    this.canvas.addEventListener("pointermove", (event) => {
      if (event.buttons || !this.held.by) point(event);
    });
    // A value that was pressed stays while the pointer goes elsewhere, until it is pressed once more.
    this.canvas.addEventListener("pointerdown", (event) => {
      const before = this.held.by === this && String(this.place);
      point(event);
      this.held.by = before === String(this.place) ? null : this;
    });
    this.canvas.addEventListener("focus", () => this.pick(this.place ?? [0, 0, 0]));
    this.canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  #key(event) {
    if (event.key === "Enter") this.onenter?.();
    const move = hasModifier(event) ? null : MOVES[event.key];
    if (!move || !this.place) return;
    event.preventDefault();
    const step = move[2] + move[1] * this.perRow;
    const within = (value, axis) => Math.max(0, Math.min(this.extent[axis] - 1, value + move[axis]));
    const place = this.wraps ? this.#wrapped(this.place[0] + this.place[2] + step) : this.place.map(within);
    if (place) this.pick(place);
  }

  pick(place) {
    this.place = place;
    this.#frame(this.picked, place, 1, 1);
    this.onpick(place);
  }

  // Pick the same place anew, or the nearest that there is now.
  pickAgain() {
    if (this.place) this.pick(this.place.map((value, axis) => Math.min(value, this.extent[axis] - 1)));
  }

  // Frame a part of one map: what a place of the next layer sees.
  highlight(map, { top, left, height, width }) {
    const [, rows, columns] = this.extent;
    const [first, start] = [Math.max(0, top), Math.max(0, left)];
    const mark = make("div", { class: "mark" });
    this.marks.push(mark);
    this.element.append(mark);
    this.#frame(mark, [map, first, start], Math.min(rows, top + height) - first, Math.min(columns, left + width) - start);
  }

  unmark() {
    for (const mark of this.marks.splice(0)) mark.remove();
  }

  #frame(mark, place, height, width) {
    const [x, y] = this.#pixel(place);
    mark.hidden = false;
    Object.assign(mark.style, {
      left: `${(100 * x) / this.canvas.width}%`,
      top: `${(100 * y) / this.canvas.height}%`,
      width: `${(100 * width) / this.canvas.width}%`,
      height: `${(100 * height) / this.canvas.height}%`,
    });
  }
}

// A table of numbers, such as a patch or a kernel; `most` gives the depth of colour, `chosen(value)` what to mark.
export function numbers(rows, caption, chosen = () => false) {
  const most = Math.max(1e-9, ...rows.flat().map((value) => Math.abs(value ?? 0)));
  const cell = (value) => {
    const element = make("td", { class: chosen(value) ? "chosen" : null }, value === null ? "0" : decimal(value));
    const share = Math.round((70 * Math.abs(value ?? 0)) / most);
    element.style.setProperty("--share", `${share}%`);
    element.classList.add(value < 0 ? "negative" : "positive");
    return element;
  };
  return make("table", { class: "numbers" }, make("caption", {}, caption), make("tbody", {}, rows.map((row) => make("tr", {}, row.map(cell)))));
}
