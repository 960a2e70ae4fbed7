// All campaigns, with a search.

import * as api from "./api.js";
import { h, problem, setText } from "./dom.js";
import { count, percent } from "./format.js";
import { Figures, rates } from "./figures.js";
import { repeat } from "./repeat.js";
import { welcome } from "./welcome.js";

const EVERY_MS = 3000;
const COLUMNS = [
  ["Sent", (c) => count(c.sent)],
  ["Delivered", (c) => count(c.delivered)],
  ["Opens", (c, r) => percent(r.open)],
  ["Clicks", (c, r) => percent(r.click)],
  ["Replies", (c, r) => percent(r.reply)],
  ["Bounces", (c, r) => percent(r.bounce)],
];

export const address = (campaignId) => `#/campaign/${encodeURIComponent(campaignId)}`;

/** The view; returns how to close it. */
export function openCampaigns(main) {
  const about = h("p", { class: "muted" }, "\u00a0");
  const search = h("input", { type: "search", id: "search", placeholder: "Search by campaign id", "aria-label": "Search campaigns", autocomplete: "off", spellcheck: "false", oninput: draw, onkeydown: openFirst });
  const place = h("div", { class: "stack" });
  const more = h("button", { type: "button", class: "quiet", onclick: nextPage }, "Show more");
  const finder = h("div", { class: "search", role: "search" }, search);
  main.append(h("div", { class: "head" }, h("div", {}, h("h1", {}, "Campaigns"), about), finder), place);

  const rows = new Map();
  const body = h("tbody");
  const head = h("tr", {}, h("th", { scope: "col" }, "Campaign"), ...COLUMNS.map(([name]) => h("th", { scope: "col", class: "number" }, name)));
  const table = h(
    "section",
    { class: "panel", "aria-label": "Campaigns" },
    h("div", { class: "campaigns" }, h("table", {}, h("caption", { class: "unseen" }, "Campaigns"), h("thead", {}, head), body)),
    h("div", { class: "more" }, more),
  );
  let pages = 1;
  let next = null;
  let known = false;

  const asking = repeat(EVERY_MS, async () => {
    try {
      let after = null;
      for (let page = 0; page < pages; page += 1) {
        const answer = await api.campaigns(after);
        for (const item of answer.items) row(item).take(item);
        after = answer.next;
        if (!after) break;
      }
      next = after;
      known = true;
      draw();
    } catch (error) {
      if (!known) place.replaceChildren(problem(error.message, asking.now));
      throw error;
    }
  });

  function nextPage() {
    pages += 1;
    asking.now();
  }

  function row({ campaignId }) {
    let one = rows.get(campaignId);
    if (!one) {
      one = campaignRow(campaignId);
      rows.set(campaignId, one);
    }
    return one;
  }

  function found() {
    const wanted = search.value.trim().toLowerCase();
    return [...rows.values()].filter((one) => one.id.toLowerCase().includes(wanted));
  }

  function openFirst(event) {
    if (event.key !== "Enter" || !search.value.trim()) return;
    location.hash = address(found()[0]?.id ?? search.value.trim());
  }

  function draw() {
    finder.hidden = rows.size === 0;
    if (rows.size === 0) {
      setText(about, "Nothing has arrived yet");
      if (!place.querySelector(".welcome")) place.replaceChildren(welcome("No campaign yet", "spring"));
      return;
    }
    const shown = found();
    const wanted = search.value.trim();
    const some = next ? " and more" : "";
    setText(about, wanted ? `${count(shown.length)} of ${count(rows.size)}${some}` : `${count(rows.size)}${some} ${rows.size === 1 ? "campaign" : "campaigns"}`);
    more.parentElement.hidden = !next;
    const elements = shown.map((one) => one.element);
    const same = elements.length === body.children.length && elements.every((one, index) => one === body.children[index]);
    if (!same) body.replaceChildren(...elements);
    if (shown.length) {
      if (!table.isConnected) place.replaceChildren(table);
    } else place.replaceChildren(nothingFound(wanted));
  }

  return asking.stop;
}

function nothingFound(wanted) {
  return h("section", { class: "panel" }, h("div", { class: "body" }, h("p", {}, "No campaign in this list has that in its id. ", h("a", { href: address(wanted) }, `Open “${wanted}” all the same`))));
}

function campaignRow(id) {
  const figures = new Figures();
  const cells = COLUMNS.map(([name]) => h("td", { class: "number", "data-label": name }, "–"));
  const element = h("tr", {}, h("th", { scope: "row", class: "name" }, h("a", { href: address(id) }, id)), ...cells);
  return {
    id,
    element,
    take(item) {
      figures.take(item);
      const r = rates(figures.counters);
      for (const [index, [, value]] of COLUMNS.entries()) setText(cells[index], value(figures.counters, r));
    },
  };
}
