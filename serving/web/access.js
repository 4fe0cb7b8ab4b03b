// The token that the service may want: typed once, kept as long as the tab.

import { make } from "./dom.js";
import { keep, recall } from "./store.js";

let token = recall("token", "sessionStorage") || null;

export const hasToken = () => token !== null;

// The headers that say who asks.
export const credentials = () => (token === null ? {} : { authorization: `Bearer ${token}` });

function setToken(text) {
  token = text || null;
  keep("token", text, "sessionStorage");
}

// Show a form for the token in `place`; `attempt()` is what was refused without it, and takes the form away again.
export function askForToken(place, attempt) {
  const why = hasToken() ? "The service does not know this token." : "This service answers those who have a token.";
  setToken("");
  const field = make("input", { type: "password", name: "token", autocomplete: "current-password", required: true, pattern: "[ -~]+", title: "printable ASCII" });
  const send = (event) => {
    event.preventDefault();
    setToken(field.value.trim());
    attempt();
  };
  const button = make("button", { class: "main" }, "Go on");
  place.replaceChildren(make("form", { class: "access", "aria-label": "Access", onsubmit: send }, make("p", { role: "alert" }, why), make("label", { class: "labelled" }, "Token ", field), button));
  field.focus();
}
