// Light, dark, or as the system says; charts follow. Paper is light, and shows what is folded.

const THEMES = ["auto", "light", "dark"];
const PAPER = 690;  // pixels across a sheet of A4 or letter
const redraws = [];  // called when colours change
let printing = false;

function remembered() {
  try {
    return localStorage.getItem("stackfit-theme");
  } catch {
    return null;  // a file opened from disk may have no storage
  }
}

function applyTheme(theme) {
  ROOT.dataset.theme = theme;
  document.getElementById("theme").textContent = `Theme: ${theme}`;
  redraws.forEach((redraw) => redraw());
}

function startTheme() {
  const button = document.getElementById("theme");
  const known = remembered();
  applyTheme(THEMES.includes(known) ? known : "auto");
  button.hidden = false;
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(ROOT.dataset.theme) + 1) % THEMES.length];
    try {
      localStorage.setItem("stackfit-theme", next);
    } catch {
      // not kept
    }
    applyTheme(next);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraws.forEach((redraw) => redraw()));
  let before = "auto", folded = [];
  addEventListener("beforeprint", () => {
    before = ROOT.dataset.theme;
    printing = true;
    applyTheme("light");
    folded = [...document.querySelectorAll("details:not([open])")];
    folded.forEach((one) => (one.open = true));
  });
  addEventListener("afterprint", () => {
    folded.forEach((one) => (one.open = false));
    printing = false;
    applyTheme(before);
  });
}

function colour(name) {
  return getComputedStyle(ROOT).getPropertyValue(`--${name}`).trim();
}
