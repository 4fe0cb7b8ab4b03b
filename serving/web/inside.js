// Look inside: the maps of every layer for this drawing, its kernels, and how any value came about.

import * as api from "./api.js";
import { Chooser } from "./chooser.js";
import { decimal, make } from "./dom.js";
import { equation } from "./equation.js";
import { Live, persist } from "./live.js";
import { Maps } from "./maps.js";
import { Network } from "./network.js";

const KIND_WORDS = { ReLU: "ReLU: negative values become 0", ScaledTanh: "tanh", BatchNorm2d: "batch normalisation" };
const MOST_KERNELS = 512;

const shapeText = (shape) => shape.join(" × ");

export class View {
  constructor(body, session) {
    this.session = session;
    this.networks = new Map();
    this.kernels = [];
    this.live = new Live((signal) => persist(() => this.#ask(signal), (why) => this.#hide(why), signal));
    this.note = make("p", { class: "note", role: "status" });
    this.layers = make("div", { class: "layers" });
    this.inspector = make("div", { class: "inspector", role: "region", "aria-label": "How the value came about", "aria-live": "polite", tabindex: 0 });
    this.chooser = new Chooser(() => this.update());
    const hint = "Point at a pixel, or go to a map with Tab and move with the arrow keys (Page Up and Page Down change the map), to see how its value came about. A press holds the value, Enter goes to the arithmetic. Orange is positive, blue negative.";
    body.append(this.chooser.element, this.note, make("p", { class: "note" }, hint), make("div", { class: "inside" }, this.layers, this.inspector));
    document.addEventListener("themechange", () => this.layers.hidden || this.#repaint());
  }

  update() {
    const models = this.session.service.models.filter((model) => model.layers);
    if (!models.length) return this.#say("No network here was published with its inside.");
    const first = this.session.chosen.find((model) => model.layers) ?? models[0];
    this.chooser.offer(models.map(({ name }) => name), first.name);
    if (this.session.blob) return this.live.touch();
    this.live.cancel();
    this.#hide("Draw something first.");
  }

  // What is shown is of another drawing; kept, with the value that was picked, for the next.
  #hide(why) {
    this.layers.hidden = this.inspector.hidden = true;
    this.#say(why);
  }

  #say(text) {
    this.note.textContent = text;
  }

  async #ask(signal) {
    const name = this.chooser.value;
    if (!this.networks.has(name)) this.networks.set(name, new Network(await api.describe(name)));
    signal.throwIfAborted();
    const answer = await api.explain(this.session.blob, name, "layers", signal);
    signal.throwIfAborted();
    const network = this.networks.get(name);
    if (network.model.version !== answer.model.version) {
      this.networks.delete(name);
      return this.live.touch();
    }
    network.fill(answer);
    this.#show(network);
    this.#say("");
  }

  #show(network) {
    this.layers.hidden = this.inspector.hidden = false;
    if (this.network !== network) {
      this.network = network;
      this.maps = new Map();
      this.kernels = [];
      this.held = { by: null };
      this.inspector.replaceChildren(make("p", { class: "note" }, "Nothing chosen yet."));
      this.picked = null;
      this.layers.replaceChildren(...network.layers.map((layer) => this.#layer(layer)));
    }
    this.#fill();
  }

  #layer(layer) {
    const label = `Values of ${layer.name}. Arrow keys choose a value, Enter goes to how it came about.`;
    const maps = new Maps({ label, onpick: (place) => this.#pick(layer, place), onenter: () => this.inspector.focus(), held: this.held });
    this.maps.set(layer.name, maps);
    const costs = layer.parameters ? ` · ${layer.parameters.toLocaleString("en")} weights, ${layer.multiply_adds.toLocaleString("en")} multiply-adds` : "";
    return make(
      "section",
      { class: "layer", "data-layer": layer.name },
      make("h3", {}, layer.name, " ", make("small", {}, `${KIND_WORDS[layer.kind] ?? layer.kind} ${layer.geometry}`)),
      make("p", { class: "note" }, `${shapeText(layer.input_shape)} → ${shapeText(layer.output_shape)} · ${layer.arithmetic}${costs}`),
      maps.element,
      layer.kind === "convolution" ? this.#kernels(layer) : null,
    );
  }

  #kernels(layer) {
    const { shape: [out, into, height, width], values } = this.network.kernels.get(layer.weight);
    const shown = Math.min(out * into, MOST_KERNELS);
    const text = `The ${out} × ${into} kernels of ${height} × ${width}${shown < out * into ? `, the first ${shown}` : ""}`;
    const details = make("details", { class: "kernels" }, make("summary", {}, text));
    details.addEventListener("toggle", () => {
      if (details.childElementCount > 1) return;
      const maps = new Maps({ label: `Kernels of ${layer.name}`, columns: Math.min(shown, into === 1 ? 10 : into) });
      details.append(maps.element);
      const show = () => maps.show(values.subarray(0, shown * height * width), [shown, height, width]);
      this.kernels.push(show);
      show();
    });
    return details;
  }

  #fill() {
    if (!this.network) return;
    for (const layer of this.network.layers) this.maps.get(layer.name).show(this.network.valuesOf(layer), this.network.extent(layer));
    if (this.picked) this.#pick(...this.picked);
  }

  #repaint() {
    this.#fill();
    for (const show of this.kernels) show();
  }

  #pick(layer, place) {
    this.picked = [layer, place];
    const explained = this.network.explain(layer, place);
    for (const [name, maps] of this.maps) {
      maps.unmark();
      maps.picked.hidden = name !== layer.name;
    }
    const source = this.maps.get(explained.source);
    for (const { map, box } of explained.terms ?? []) source?.highlight(map, box);
    if (explained.pixel) source?.highlight(explained.pixel[0], { top: explained.pixel[1], left: explained.pixel[2], height: 1, width: 1 });
    this.inspector.replaceChildren(...equation(explained, layer));
    this.inspector.dataset.value = decimal(explained.value);
  }
}
