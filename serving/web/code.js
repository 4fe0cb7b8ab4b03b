// The request just made, to be copied.

import { hasToken } from "./access.js";
import { make } from "./dom.js";
import * as snippets from "./snippets.js";

const LONGEST_SHOWN = 30;

function shorten(text) {
  const lines = text.split("\n");
  if (lines.length <= LONGEST_SHOWN) return text;
  const cut = lines.findIndex((line, number) => number > 2 && line.length === 100);
  const last = lines.findLastIndex((line) => line.length === 100);
  return [...lines.slice(0, cut + 2), `… ${last - cut - 2} more lines of the picture, copied with the rest …`, ...lines.slice(last)].join("\n");
}

export class View {
  constructor(body, session) {
    this.session = session;
    this.note = make("p", { class: "note", role: "status" });
    this.blocks = make("div", { class: "snippets" });
    body.append(this.note, this.blocks);
  }

  async update() {
    const { blob, answer, service } = this.session;
    this.blocks.hidden = !answer;
    this.note.textContent = answer ? "" : this.session.missing;
    if (!answer) return;
    const { name } = answer.model;
    // A large picture takes seconds to write out.
    const asked = [blob, name, hasToken(), service.grpc_port];
    if (this.asked?.every((part, place) => part === asked[place])) return;
    this.asked = asked;
    const bytes = new Uint8Array(await blob.arrayBuffer());
    if (asked !== this.asked) return;
    const base = new URL(".", location.href).href;
    const made = [["curl", snippets.curl(base, name, bytes, hasToken())], ["Python", snippets.python(base, name, bytes, hasToken())]];
    if (service.grpc_port) made.push(["gRPC", snippets.grpc(`${location.hostname}:${service.grpc_port}`, name, this.#pixels(), hasToken(), location.protocol === "https:")]);
    // What is there already keeps its focus, and that it was copied.
    const texts = made.map(([, text]) => text).join();
    if (texts === this.texts) return;
    this.texts = texts;
    this.blocks.replaceChildren(...made.map(([title, text]) => this.#block(title, text)));
  }

  #pixels() {
    const { data } = document.getElementById("seen-picture").getContext("2d", { willReadFrequently: true }).getImageData(0, 0, 28, 28);
    return Uint8Array.from({ length: 784 }, (_, pixel) => data[4 * pixel]);
  }

  #block(title, text) {
    const button = make("button", { type: "button", onclick: () => this.#copy(button, title, text) }, `Copy as ${title}`);
    return make("section", { class: "snippet", "data-snippet": title }, make("h3", {}, title), button, make("pre", { tabindex: 0, "aria-label": `${title} code` }, shorten(text)));
  }

  async #copy(button, title, text) {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = `Copy as ${title}`), 2000);
    } catch {
      const field = make("textarea", { "aria-label": `${title} code`, rows: 6, readonly: true }, text);
      button.replaceWith(field);
      field.select();
      this.note.textContent = "The browser did not let the page write to the clipboard; the text is selected, press Ctrl+C or ⌘C.";
    }
  }
}
