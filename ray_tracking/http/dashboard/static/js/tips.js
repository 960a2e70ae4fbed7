// Explanations: shown on hover, on focus and on a tap; Escape puts them away.

import { h, icon } from "./dom.js";

let next = 0;

/**
 * A button with a text that belongs to it, and shows while the pointer is on the whole
 * card or the button has the focus. The tip's content may be changed at any time.
 */
export function tip(card, about) {
  const id = `tip-${next++}`;
  const text = h("div", { class: "tip", role: "tooltip", id });
  const button = h(
    "button",
    { class: "why", type: "button", "aria-label": `How ${about} is counted`, "aria-describedby": id },
    icon("M8 1.8a6.2 6.2 0 1 0 0 12.4A6.2 6.2 0 0 0 8 1.8Z", "M8 7.3v3.6M8 5v.1"),
  );
  const show = () => {
    const { left, width } = card.getBoundingClientRect();
    text.classList.toggle("left", left + width / 2 > innerWidth / 2);
    text.setAttribute("data-open", "");
  };
  const hide = () => text.removeAttribute("data-open");
  card.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && show());
  card.addEventListener("pointerleave", () => document.activeElement !== button && hide());
  card.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  button.addEventListener("focus", show);
  button.addEventListener("blur", hide);
  button.addEventListener("click", show);
  return { button, text };
}
