// Makes elements. Text only ever goes in as text, so nothing from outside can become markup.

export const byId = (id) => document.getElementById(id);

// Where text is typed, which has an undo and a paste of its own.
export const isTextField = (element) => element.matches?.("textarea, input:not([type=checkbox], [type=range], [type=file])") ?? false;

// With one, a key is a command of the browser, such as Alt and an arrow, which goes back.
export const hasModifier = (event) => event.altKey || event.ctrlKey || event.metaKey;

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null));
  return element;
}

export function percent(share) {
  const text = (share * 100).toFixed(1);
  return share > 0 && text === "0.0" ? "<0.1 %" : share < 1 && text === "100.0" ? ">99.9 %" : `${text} %`;
}

export const decimal = (value) => (Math.abs(value) >= 100 ? value.toFixed(1) : value.toFixed(3)).replace("-", "\u2212");

export function labelled(text, control) {
  return make("label", { class: "labelled" }, text, control);
}

export function choice(options, chosen, onchange) {
  const select = make("select", { onchange: () => onchange(select.value) });
  for (const [value, text] of options) select.append(make("option", { value, selected: value === chosen }, text));
  return select;
}
