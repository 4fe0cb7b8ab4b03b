// The page: wires the sheet, the cards and the views that open below.

import * as api from "./api.js";
import { askForToken } from "./access.js";
import { Cards, showSeen, spoken } from "./answers.js";
import { byId, isTextField, make, percent } from "./dom.js";
import { Live, pause } from "./live.js";
import { Pad } from "./pad.js";
import { Sources, sourceOf } from "./sources.js";
import { keep, recall } from "./store.js";
import { connectTheme } from "./theme.js";

const VIEWS = { inside: "./inside.js", occlusion: "./occlusion.js", bench: "./bench.js", code: "./code.js" };
const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 5000;

// An answer that takes longer is shown to be on its way.
const LONG_MS = 300;
const NO_ANSWER = "No answer yet.";

// What the views below get: the picture last asked about and its answer.
const session = {
  service: null,
  chosen: [],
  blob: null,
  answer: null,
  views: new Map(),
  // Why there is no answer, in words.
  get missing() {
    if (!this.blob) return "Draw something first.";
    if (retry) return "The service does not answer.";
    return this.chosen.length ? "No network could read what is there." : "Choose a network first.";
  },
};

const pad = new Pad(byId("pad"), byId("pen-cursor"));
const cards = new Cards();
const live = new Live(ask);
const say = (text) => (byId("source").textContent = text);

async function ask(signal) {
  if (!session.service || pad.isEmpty) return forget(pad.isEmpty ? undefined : NO_ANSWER);
  const blob = await pad.toBlob();
  signal.throwIfAborted();
  try {
    let answers = await Promise.all(session.chosen.map(({ name }) => askOne(blob, name, signal)));
    signal.throwIfAborted();
    await settle(blob, answers);
    // Who had too much to do is asked again, nobody else, and only about what is still there.
    while (answers.some(({ again_s }) => again_s)) {
      await pause(Math.max(...answers.map(({ again_s }) => again_s ?? 0)), signal);
      answers = await Promise.all(answers.map((answer) => (answer.again_s ? askOne(blob, answer.name, signal) : answer)));
      signal.throwIfAborted();
      await settle(blob, answers);
    }
  } catch (error) {
    if (error instanceof api.Offline) {
      waitForService(error.message);
      // What is shown was answered about another drawing.
      cards.reset(NO_ANSWER);
      await show(blob, []);
    } else if (error instanceof api.Locked) lock();
    else throw error;
  }
}

async function askOne(blob, name, signal) {
  const waits = setTimeout(() => {
    cards.of(name)?.wait();
    if (session.blob !== blob) showQuick(null);
  }, LONG_MS);
  try {
    const answer = await api.predict(blob, name, signal);
    if (!signal.aborted) cards.of(name)?.answer(answer.prediction, answer.took_ms);
    noticeVersion(name, answer.model.version);
    return answer;
  } catch (error) {
    if (!(error instanceof api.Refused)) throw error;
    if (error.status === 404) noticeVersion(name, null);
    if (!signal.aborted) cards.of(name)?.fail(error.message);
    return { name, refusal: `${name}: ${error.message}`, again_s: error.status === 429 ? error.retryAfter_s || 1 : null };
  } finally {
    clearTimeout(waits);
  }
}

// The version that answered last where it is not the one listed; null where the network is gone.
const unlisted = new Map();

// Other models may have been loaded since they were listed; then the list is asked for anew, once for each change.
function noticeVersion(name, version) {
  const listed = session.chosen.find((model) => model.name === name);
  if (!listed) return;
  if (listed.version === version) unlisted.delete(name);
  else if (unlisted.get(name) !== version) {
    unlisted.set(name, version);
    start();
  }
}

async function settle(blob, answers) {
  allIsWell();
  await show(blob, answers);
}

async function show(blob, answers) {
  Object.assign(session, { blob, answer: answers.find(({ prediction }) => prediction) ?? null });
  byId("spoken").textContent = answers.map(({ model, prediction, refusal }) => refusal ?? spoken(model.name, prediction)).join(". ");
  showQuick(session.answer?.prediction);
  await showSeen(session.answer?.prediction.input, pad);
  updateViews();
}

function forget(text) {
  if (!retry) allIsWell();
  Object.assign(session, { blob: null, answer: null });
  cards.reset(text);
  byId("spoken").textContent = "";
  showQuick(null);
  showSeen(null, pad);
  updateViews();
}

// Where the cards lie below the fold, the sheet's own heading says what is read.
function showQuick(prediction) {
  const digit = prediction?.digit;
  byId("quick").textContent = digit == null ? "" : `reads ${digit}, ${prediction.accepted ? percent(prediction.confidence) : "not accepted"}`;
}

function updateViews() {
  if (!session.service) return;
  for (const view of session.views.values()) if (view.details.open) view.update();
}

let retry = null;
let wait_ms = FIRST_RETRY_MS;
let trouble = "";

function waitForService(text = trouble) {
  trouble = text;
  const banner = byId("banner");
  const whole = `${text} Your drawing is kept; trying again …`;
  // Read out once, however often it is tried.
  if (banner.textContent !== whole) banner.textContent = whole;
  banner.hidden = false;
  if (retry) return;
  const attempt = async () => {
    const alive = await api.isAlive();
    retry = null;
    await (alive ? start() : waitForService());
  };
  retry = setTimeout(attempt, wait_ms);
  wait_ms = Math.min(2 * wait_ms, LONGEST_RETRY_MS);
}

function stopWaiting() {
  clearTimeout(retry);
  retry = null;
}

function allIsWell() {
  wait_ms = FIRST_RETRY_MS;
  byId("banner").hidden = true;
}

// Nothing is asked of the service until somebody has typed its token.
function lock() {
  stopWaiting();
  allIsWell();
  // What is shown was answered about another drawing.
  forget(NO_ANSWER);
  session.service = null;
  byId("more").hidden = true;
  askForToken(byId("access"), start);
}

const checkedNames = () => [...document.querySelectorAll("#models input:checked")].map((input) => input.value);

function changeChoice() {
  wanted = checkedNames();
  keep("models", JSON.stringify(wanted));
  if (session.service) choose();
}

function choose() {
  const names = checkedNames();
  session.chosen = session.service.models.filter((model) => names.includes(model.name));
  cards.show(session.chosen);
  live.touch();
}

// The networks that were chosen at the last visit.
function recallNames() {
  try {
    const names = JSON.parse(recall("models"));
    return Array.isArray(names) ? names : [];
  } catch {
    return [];
  }
}

let wanted = recallNames();

let offered = "";

// What is offered already keeps its focus, and what is chosen of it.
function offerModels() {
  const { models, default_model } = session.service;
  const texts = JSON.stringify([default_model, models.map(({ name, description }) => [name, description])]);
  if (texts === offered) return;
  offered = texts;
  const kept = wanted.filter((name) => models.some((model) => model.name === name));
  const names = kept.length ? kept : [default_model];
  const chips = models.map(({ name, description }) =>
    make("label", { title: description }, make("input", { type: "checkbox", value: name, checked: names.includes(name), onchange: changeChoice }), name),
  );
  byId("models").replaceChildren(byId("models").querySelector("legend"), ...chips);
}

async function openView(details) {
  if (!details.open || !session.service) return;
  const body = details.querySelector(".body");
  if (!session.views.has(details.id)) {
    const loaded = await import(VIEWS[details.id]).catch(() => null);
    if (!loaded) return waitForService("The service does not answer.");
    const { View } = loaded;
    if (!session.views.has(details.id)) session.views.set(details.id, Object.assign(new View(body, session), { details }));
  }
  session.views.get(details.id).update();
}

async function start() {
  try {
    session.service = await api.listModels();
  } catch (error) {
    return error instanceof api.Locked ? lock() : waitForService(error.message);
  }
  stopWaiting();
  byId("access").replaceChildren();
  byId("more").hidden = false;
  offerModels();
  choose();
  for (const id of ["inside", "occlusion"]) byId(id).hidden = !session.service.explain;
  for (const id of Object.keys(VIEWS)) openView(byId(id));
}

connectTheme(byId("theme"));
new Sources(pad, say);
pad.addEventListener("change", () => {
  byId("pad-hint").hidden = !pad.isEmpty;
  byId("undo").disabled = !pad.canUndo;
  byId("clear").disabled = pad.isEmpty;
  byId("ink-box").hidden = true;
  say(pad.untouched ? sourceOf(pad.untouched) : "");
  live.touch();
});
byId("undo").addEventListener("click", () => pad.undo());
byId("clear").addEventListener("click", () => pad.clear());
const setPen = () => (pad.penWidth = Number(byId("pen-width").value));
byId("pen-width").addEventListener("input", setPen);
// Browsers put back what was set before one went away, and tell nobody.
window.addEventListener("pageshow", setPen);
document.addEventListener("keydown", (event) => {
  if (event.key.toLowerCase() === "z" && !event.shiftKey && (event.ctrlKey || event.metaKey) && !isTextField(event.target)) pad.undo();
});
window.addEventListener("offline", () => waitForService("This device is offline."));
window.addEventListener("online", () => retry && start());
for (const id of Object.keys(VIEWS)) byId(id).addEventListener("toggle", (event) => openView(event.target));
await start();
