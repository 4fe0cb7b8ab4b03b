// Light, dark, or as the system is; kept for the next visit.

import { keep, recall } from "./store.js";

const NEXT = { system: "light", light: "dark", dark: "system" };

export function connectTheme(button) {
  const show = (theme) => {
    button.textContent = `Theme: ${theme}`;
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  };
  let theme = recall("theme");
  if (!Object.hasOwn(NEXT, theme)) theme = "system";
  show(theme);
  const tell = () => document.dispatchEvent(new Event("themechange"));
  button.addEventListener("click", () => {
    theme = NEXT[theme];
    keep("theme", theme);
    show(theme);
    tell();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", tell);
}
