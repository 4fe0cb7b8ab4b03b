// The sheet of paper: strokes and pictures, undo and clear, drawing by pointer or keyboard.

import { hasModifier, make } from "./dom.js";

const INK = "#111111";
const PAPER = "#ffffff";
const KEY_STEP = 12;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Pad extends EventTarget {
  #canvas;
  #pen;
  // What lies under the last stroke, so that a stroke costs the same however many came before.
  #ground;
  #frame = null;
  #entries = [];
  #stroke = null;
  #pointer = null;
  #cursorMark;
  #cursor;
  #keyboardStroke = null;

  constructor(canvas, cursorMark) {
    super();
    this.#canvas = canvas;
    this.#pen = canvas.getContext("2d");
    this.#ground = make("canvas", { width: canvas.width, height: canvas.height }).getContext("2d");
    this.#cursorMark = cursorMark;
    this.#cursor = { x: canvas.width / 2, y: canvas.height / 2 };
    this.penWidth = 30;
    canvas.addEventListener("pointerdown", (event) => this.#start(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) canvas.addEventListener(end, (event) => this.#end(event));
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => this.#liftPen());
    this.#changed();
  }

  get size() {
    return this.#canvas.width;
  }

  get #visible() {
    const start = this.#entries.findLastIndex((entry) => entry.kind !== "stroke");
    return this.#entries.slice(Math.max(0, start)).filter((entry) => entry.kind !== "clear");
  }

  get isEmpty() {
    return this.#visible.length === 0;
  }

  get canUndo() {
    return this.#entries.length > 0;
  }

  // The picture that lies there untouched, which is sent as it came.
  get untouched() {
    const last = this.#visible.at(-1);
    return last?.kind === "picture" ? last : null;
  }

  undo() {
    this.#stopStrokes();
    this.#entries.pop();
    this.#changed();
  }

  clear() {
    this.#stopStrokes();
    if (!this.isEmpty) this.#entries.push({ kind: "clear" });
    this.#changed();
  }

  // A picture covers what was there. `bitmap` is null where the browser cannot show the picture; the service may read it all the same.
  place(blob, name, bitmap) {
    this.#stopStrokes();
    this.#entries.push({ kind: "picture", blob, name, bitmap });
    this.#changed();
  }

  async toBlob() {
    if (this.untouched) return this.untouched.blob;
    this.#paint();
    return new Promise((resolve) => this.#canvas.toBlob(resolve, "image/png"));
  }

  // Where a point of the placed picture lies on the sheet, as shares of its side.
  frame([width, height]) {
    const scale = this.size / Math.max(width, height);
    return { scale: scale / this.size, left: (1 - (width * scale) / this.size) / 2, top: (1 - (height * scale) / this.size) / 2 };
  }

  #point(event) {
    const area = this.#canvas.getBoundingClientRect();
    const scale = this.size / area.width;
    return { x: (event.clientX - area.left) * scale, y: (event.clientY - area.top) * scale };
  }

  #start(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    // Another finger or the palm; the stroke that goes on is the first one's.
    if (this.#stroke) return;
    this.#pointer = event.pointerId;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#canvas.focus({ focusVisible: false });
    this.#liftPen();
    this.#stroke = { kind: "stroke", width: this.penWidth, points: [this.#point(event)] };
    this.#entries.push(this.#stroke);
    this.#changed();
  }

  #move(event) {
    if (!this.#stroke || event.pointerId !== this.#pointer) return;
    const moves = event.getCoalescedEvents?.() ?? [];
    for (const move of moves.length ? moves : [event]) this.#stroke.points.push(this.#point(move));
    this.#grown();
  }

  #end(event) {
    if (event.pointerId === this.#pointer) this.#stroke = null;
  }

  // What is under way goes on no more: it would draw into what is taken away or covered.
  #stopStrokes() {
    this.#stroke = this.#keyboardStroke = null;
    this.#cursorMark.classList.remove("down");
  }

  #key(event) {
    if (hasModifier(event)) return;
    const arrow = ARROWS[event.key];
    if (arrow) this.#moveByKey(arrow, event.shiftKey ? 1 : KEY_STEP);
    else if (event.key === " ") this.#togglePen(event.repeat);
    else if (event.key === "Escape") this.#liftPen();
    else return;
    event.preventDefault();
  }

  #moveByKey([right, down], step) {
    const inside = (value) => Math.max(0, Math.min(this.size, value));
    this.#cursor = { x: inside(this.#cursor.x + right * step), y: inside(this.#cursor.y + down * step) };
    if (this.#keyboardStroke) {
      this.#keyboardStroke.points.push(this.#cursor);
      this.#grown();
    }
    this.#showCursor();
  }

  #togglePen(again) {
    if (again || this.#stroke) return; // the key is still held; one stroke at a time
    if (this.#keyboardStroke) {
      this.#liftPen();
      this.#showCursor();
      return;
    }
    this.#keyboardStroke = { kind: "stroke", width: this.penWidth, points: [this.#cursor] };
    this.#entries.push(this.#keyboardStroke);
    this.#showCursor();
    this.#changed();
  }

  #liftPen() {
    this.#keyboardStroke = null;
    this.#cursorMark.hidden = true;
  }

  #showCursor() {
    this.#cursorMark.hidden = false;
    this.#cursorMark.classList.toggle("down", this.#keyboardStroke !== null);
    this.#cursorMark.style.left = `${(100 * this.#cursor.x) / this.size}%`;
    this.#cursorMark.style.top = `${(100 * this.#cursor.y) / this.size}%`;
  }

  // Something came or went: what lies under the last stroke is another.
  #changed() {
    this.#paintGround();
    this.#grown();
  }

  // The last stroke has grown; it is painted once a frame.
  #grown() {
    this.#frame ??= requestAnimationFrame(() => this.#paint());
    this.dispatchEvent(new Event("change"));
  }

  get #lastStroke() {
    const last = this.#visible.at(-1);
    return last?.kind === "stroke" ? last : null;
  }

  #paintGround() {
    this.#ground.fillStyle = PAPER;
    this.#ground.fillRect(0, 0, this.size, this.size);
    const last = this.#lastStroke;
    for (const entry of this.#visible) {
      if (entry === last) continue;
      if (entry.kind === "stroke") paintStroke(this.#ground, entry);
      else if (entry.bitmap) this.#paintPicture(entry.bitmap);
    }
  }

  #paint() {
    cancelAnimationFrame(this.#frame);
    this.#frame = null;
    this.#pen.drawImage(this.#ground.canvas, 0, 0);
    if (this.#lastStroke) paintStroke(this.#pen, this.#lastStroke);
  }

  #paintPicture(bitmap) {
    const { scale, left, top } = this.frame([bitmap.width, bitmap.height]);
    // The rest of the sheet takes the colour of the picture's corner, so that a stroke on top adds no frame.
    this.#ground.drawImage(bitmap, 0, 0, 1, 1, 0, 0, this.size, this.size);
    const full = scale * this.size;
    this.#ground.drawImage(bitmap, left * this.size, top * this.size, bitmap.width * full, bitmap.height * full);
  }
}

function paintStroke(pen, { width, points }) {
  Object.assign(pen, { lineWidth: width, lineCap: "round", lineJoin: "round", strokeStyle: INK });
  pen.beginPath();
  pen.moveTo(points[0].x, points[0].y);
  for (let index = 1; index < points.length - 1; index++) {
    const [here, next] = [points[index], points[index + 1]];
    pen.quadraticCurveTo(here.x, here.y, (here.x + next.x) / 2, (here.y + next.y) / 2);
  }
  const last = points.at(-1);
  pen.lineTo(last.x + 0.01, last.y);
  pen.stroke();
}
