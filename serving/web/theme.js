// Light, dark, or as the system is; kept for the next visit.

const NEXT = { system: "light", light: "dark", dark: "system" };

export function connectTheme(button) {
  const show = (theme) => {
    button.textContent = `Theme: ${theme}`;
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  };
  let theme = localStorage.getItem("theme");
  theme = theme in NEXT ? theme : "system";
  show(theme);
  button.addEventListener("click", () => {
    theme = NEXT[theme];
    localStorage.setItem("theme", theme);
    show(theme);
    document.dispatchEvent(new Event("themechange"));
  });
}
