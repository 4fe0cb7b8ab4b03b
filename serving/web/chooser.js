// A choice of networks that keeps what was chosen while others come and go.

import { choice, labelled, make } from "./dom.js";

export class Chooser {
  constructor(onchange) {
    this.element = make("div");
    this.value = null;
    this.onchange = onchange;
  }

  // Offer `names`; `first` is chosen where the one chosen before is not among them.
  offer(names, first) {
    if (String(names) === String(this.names)) return;
    this.names = names;
    if (!names.includes(this.value)) this.value = first;
    const select = choice(names.map((name) => [name, name]), this.value, (name) => {
      this.value = name;
      this.onchange();
    });
    this.element.replaceChildren(labelled("Network ", select));
  }
}
