// Light or dark: as the system has it until somebody chooses.

import { icon } from "./dom.js";

const root = document.documentElement;
const system = matchMedia("(prefers-color-scheme: dark)");
const SUN = ["M8 5.2a2.8 2.8 0 1 0 0 5.6 2.8 2.8 0 0 0 0-5.6Z", "M8 1.5v1M8 13.5v1M1.5 8h1M13.5 8h1M3.4 3.4l.7.7M11.9 11.9l.7.7M3.4 12.6l.7-.7M11.9 4.1l.7-.7"];
const MOON = ["M13.2 9.6A5.6 5.6 0 0 1 6.4 2.8a5.6 5.6 0 1 0 6.8 6.8Z"];

/** Tells of a change: charts paint with colours that they were given. */
export const themeChanges = new EventTarget();

function stored() {
  try {
    return localStorage.getItem("theme");
  } catch {
    return null; // storage is forbidden
  }
}

function apply(theme) {
  root.dataset.theme = theme;
  const other = theme === "dark" ? "light" : "dark";
  const button = document.getElementById("theme");
  button.replaceChildren(icon(...(theme === "dark" ? SUN : MOON)));
  button.setAttribute("aria-label", `Change to the ${other} theme`);
  button.title = `Change to the ${other} theme`;
  themeChanges.dispatchEvent(new Event("change"));
}

export function startTheme() {
  apply(root.dataset.theme);
  document.getElementById("theme").addEventListener("click", () => {
    const theme = root.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("theme", theme);
    } catch { /* it holds for this page */ }
    apply(theme);
  });
  system.addEventListener("change", () => stored() ?? apply(system.matches ? "dark" : "light"));
}

/** The value of a colour's name in the theme of now. */
export const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
