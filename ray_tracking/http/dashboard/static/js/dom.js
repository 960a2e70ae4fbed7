// Elements, made without ever parsing a text as HTML.

/**
 * An element. Properties that begin with "on" are listeners; the rest are attributes,
 * left out where they are null or false. Children are elements or texts.
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** A line drawing of 16 by 16, for beside a text that says the same. */
export function icon(...paths) {
  const svg = document.createElementNS(SVG, "svg");
  const looks = { viewBox: "0 0 16 16", fill: "none", stroke: "currentColor", "stroke-width": "1.5", "stroke-linecap": "round", "stroke-linejoin": "round", "aria-hidden": "true" };
  for (const [name, value] of Object.entries(looks)) svg.setAttribute(name, value);
  for (const d of paths) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", d);
    svg.append(path);
  }
  return svg;
}

/** Change a text only where it differs, so that nothing is laid out again for nothing. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A panel with a heading, and what stands at the end of its head. */
export function panel(title, ...atEnd) {
  const body = h("div", { class: "body" });
  const id = `panel-${title.toLowerCase().replaceAll(/[^a-z]+/g, "-")}`;
  const element = h(
    "section",
    { class: "panel", "aria-labelledby": id },
    h("header", {}, h("h2", { id }, title), ...atEnd),
    body,
  );
  return { element, body };
}

/** Says that something could not be had, and offers to try again. */
export function problem(text, again) {
  return h(
    "div",
    { class: "problem", role: "alert" },
    h("span", {}, text),
    h("button", { type: "button", onclick: again }, "Try again"),
  );
}
