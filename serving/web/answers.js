// The cards: one for each network, with its digit, ten bars, and whether it may be trusted.

import { byId, make, percent } from "./dom.js";

const REASONS = {
  blank: "there is no ink",
  low_confidence: "the network is not sure enough",
};
const POLARITY = { dark_on_light: "dark ink on a light ground", light_on_dark: "light ink on a dark ground" };

const inWords = (reason) => REASONS[reason] ?? reason.replaceAll("_", " ");

export class Cards {
  #cards = new Map();

  // Keep one card for each of `models`, in that order.
  show(models) {
    const versions = new Map(models.map(({ name, version }) => [name, version]));
    byId("no-cards").hidden = models.length > 0;
    for (const [name, card] of this.#cards) {
      if (versions.get(name) !== card.version) {
        card.element.remove();
        this.#cards.delete(name);
      }
    }
    for (const model of models) {
      if (!this.#cards.has(model.name)) this.#cards.set(model.name, new Card(model));
      byId("cards").append(this.#cards.get(model.name).element);
    }
  }

  of(name) {
    return this.#cards.get(name);
  }

  reset(text) {
    for (const card of this.#cards.values()) card.reset(text);
  }
}

class Card {
  constructor(model) {
    const accuracy = model.test_accuracy == null ? "" : ` · ${(model.test_accuracy * 100).toFixed(2)} % of MNIST`;
    this.version = model.version;
    this.digit = make("span", { class: "digit" });
    this.sure = make("p");
    this.verdict = make("p");
    this.bars = Array.from({ length: 10 }, (_, digit) => bar(digit));
    this.time = make("p", { class: "time" });
    this.element = make(
      "article",
      { class: "card", "data-model": model.name, "aria-label": `Answer of ${model.name}` },
      make("h3", {}, make("span", {}, model.name), make("small", {}, `version ${model.version}${accuracy}`)),
      make("div", { class: "verdict" }, this.digit, make("div", {}, this.sure, this.verdict)),
      make("ol", { class: "bars", "aria-label": "Probability of each digit" }, this.bars.map((entry) => entry.element)),
      this.time,
    );
    this.reset();
  }

  reset(text = "Draw something.") {
    this.#fill({ digit: null, probabilities: null }, text, "", "");
    this.time.textContent = "";
  }

  // What it shows was answered about another drawing.
  wait() {
    this.reset("Waiting for the answer …");
    this.element.classList.add("waiting");
  }

  fail(text) {
    this.#fill({ digit: null, probabilities: null }, text, "", "error");
    this.time.textContent = "";
  }

  answer(prediction, took_ms) {
    const sure = prediction.confidence == null ? "No digit" : `${percent(prediction.confidence)} sure`;
    const verdict = prediction.accepted ? "Accepted" : `Not accepted: ${prediction.reasons.map(inWords).join("; ")}`;
    this.#fill(prediction, sure, verdict, "");
    this.verdict.className = prediction.accepted ? "accepted" : "refusal";
    this.time.textContent = `Answered in ${took_ms < 10 ? took_ms.toFixed(1) : took_ms.toFixed(0)} ms, network included`;
  }

  #fill({ digit, probabilities, accepted = true }, sure, verdict, className) {
    this.element.classList.remove("waiting");
    this.element.classList.toggle("refused", !accepted);
    this.digit.textContent = digit ?? "–";
    this.sure.textContent = sure;
    this.sure.className = className;
    this.verdict.textContent = verdict;
    this.bars.forEach((entry, index) => entry.set(probabilities ? probabilities[index] : null, index === digit));
  }
}

function bar(digit) {
  const fill = make("span", { class: "fill" });
  const share = make("span", { class: "share" });
  const element = make("li", {}, make("span", {}, String(digit)), make("span", { class: "track" }, fill), share);
  return {
    element,
    set(probability, best) {
      fill.style.width = `${100 * (probability ?? 0)}%`;
      share.textContent = probability == null ? "" : percent(probability);
      element.classList.toggle("best", best);
    },
  };
}

export function spoken(name, prediction) {
  if (prediction.digit == null) return `${name}: no digit, ${prediction.reasons.map(inWords).join(", ")}`;
  const trust = prediction.accepted ? "accepted" : `not accepted, ${prediction.reasons.map(inWords).join(", ")}`;
  return `${name} reads ${prediction.digit}, ${percent(prediction.confidence)} sure, ${trust}`;
}

// What the network saw: the 28x28 picture, where the ink was found, and its polarity.
export async function showSeen(input, pad) {
  byId("seen").hidden = !input;
  byId("ink-box").hidden = !input?.box;
  if (!input) return;
  const picture = new Image();
  picture.src = input.image;
  await picture.decode();
  byId("seen-picture").getContext("2d", { willReadFrequently: true }).drawImage(picture, 0, 0);
  byId("seen-text").textContent = seenText(input);
  if (input.box) placeBox(input, pad);
}

function seenText({ box, size, polarity }) {
  const found = box ? `ink from ${box[0]}, ${box[1]} to ${box[2]}, ${box[3]}` : "no ink";
  return `What the network sees, 28 × 28 pixels. Found: ${POLARITY[polarity]}, ${found}, in ${size[0]} × ${size[1]} pixels.`;
}

function placeBox({ box: [left, top, right, bottom], size }, pad) {
  const frame = pad.frame(size);
  const share = (value) => `${100 * value}%`;
  Object.assign(byId("ink-box").style, {
    left: share(frame.left + left * frame.scale),
    top: share(frame.top + top * frame.scale),
    width: share((right - left) * frame.scale),
    height: share((bottom - top) * frame.scale),
  });
}
