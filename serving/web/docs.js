// The API's documentation, from the service's own OpenAPI document.

import * as api from "./api.js";
import { askForToken, hasToken } from "./access.js";
import { byId, make } from "./dom.js";
import { connectTheme } from "./theme.js";

const json = (content) => make("pre", { tabindex: 0, "aria-label": "JSON" }, JSON.stringify(content, null, 1));

function folded(title, content) {
  return make("details", {}, make("summary", {}, title), make("div", { class: "body" }, content));
}

// Text with `code` in it.
function prose(text) {
  return make("p", {}, text.split("`").map((part, number) => (number % 2 ? make("code", {}, part) : part)));
}

function parameters(list) {
  if (!list.length) return null;
  const head = ["parameter", "in", "meaning"].map((text) => make("th", { scope: "col" }, text));
  const rows = list.map((each) => make("tr", {}, make("td", {}, make("code", {}, each.name)), make("td", {}, each.in), make("td", {}, each.description ? prose(each.description) : each.example ?? "")));
  return make("table", {}, make("thead", {}, make("tr", {}, head)), make("tbody", {}, rows));
}

function curl(method, path, operation) {
  const base = new URL(".", location.href).href;
  const place = path.replace(/\{(\w+)\}/g, (_, name) => operation.parameters.find((each) => each.name === name).example);
  const query = operation.parameters.filter((each) => each.in === "query" && each.example).map((each) => `${each.name}=${each.example}`).join("&");
  const address = `'${base}${place.slice(1)}${query ? `?${query}` : ""}'`;
  const example = operation.requestBody?.content["application/json"].example;
  const token = operation.security ? '-H "Authorization: Bearer $TOKEN" ' : "";
  if (!example) return `curl ${token}${method === "post" ? "-X POST " : ""}${address}\n`;
  return `curl ${token}-H 'Content-Type: application/json' ${address} -d '${JSON.stringify(example)}'\n`;
}

function article(method, path, operation) {
  const answers = Object.entries(operation.responses).sort(([one], [other]) => one - other);
  const exampleOf = ([, { content }]) => content["application/json"].example;
  const answered = answers.find(exampleOf);
  const errors = answers.filter((each) => each !== answered);
  const body = operation.requestBody?.content;
  return make(
    "article",
    {},
    make("h3", {}, make("span", { class: "method" }, method), make("code", {}, path)),
    make("p", {}, operation.summary, "."),
    operation.description ? prose(operation.description) : null,
    parameters(operation.parameters),
    body ? make("p", {}, `The body: ${Object.keys(body).join(", ")}.`) : null,
    folded("Request, as curl", make("pre", { tabindex: 0, "aria-label": "curl" }, curl(method, path, operation))),
    folded(`Answer, status ${answered[0]}`, json(exampleOf(answered))),
    errors.length ? make("ul", { class: "errors" }, errors.map(([status, { description }]) => make("li", {}, `${status}: ${description}`))) : null,
  );
}

function show({ info, paths }) {
  const sections = new Map();
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const [tag] = operation.tags;
      if (!sections.has(tag)) sections.set(tag, make("section", {}, make("h2", {}, tag)));
      sections.get(tag).append(article(method, path, operation));
    }
  }
  byId("docs").replaceChildren(prose(info.description), prose('Every error is `{"error": "text"}` with a status that says whose fault it is.'), ...sections.values());
}

async function load() {
  try {
    const content = await api.describeInterface();
    // A link brings no token.
    if (hasToken()) byId("openapi").href = URL.createObjectURL(new Blob([JSON.stringify(content)], { type: "application/json" }));
    show(content);
  } catch (error) {
    if (error instanceof api.Locked) return askForToken(byId("docs"), load);
    byId("docs").replaceChildren(make("p", { class: "error", role: "alert" }, `The documentation cannot be shown: ${error.message}`));
  }
}

connectTheme(byId("theme"));
await load();
