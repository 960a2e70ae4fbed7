// The headline of a campaign: six figures, each with its formula in numbers.

import { h, setText } from "./dom.js";
import { count, percent } from "./format.js";
import { rates, reachedCount, reachedName } from "./figures.js";
import { tip } from "./tips.js";

const people = (name, one, total, machine) => ({
  rate: (r) => r[name],
  under: (f) => [`${count(f.counters[one])} unique`, `${count(f.counters[total])} total`],
  why: (f, r) => [
    `unique ${total} ÷ ${reachedName(f.counters)} = ${count(f.counters[one])} ÷ ${count(reachedCount(f.counters))} = ${percent(r[name])}`,
    "Unique: leads, each counted once.",
    f.counters.delivered ? null : "Nothing was reported delivered, so what was sent counts.",
    machine ? `Left out: ${count(f[machine])} ${total} by machines, such as mail scanners.` : null,
  ],
});

/** Each: its title, its tint, and from the figures its value, its subtitle, its formula. */
const TILES = [
  {
    title: "Sent",
    tint: "sent",
    value: (f) => count(f.counters.sent),
    under: () => ["mails"],
    why: () => ["The number of EMAIL_SENT events", "Each mail that your system reported as sent."],
  },
  {
    title: "Delivered",
    tint: "delivered",
    value: (f) => count(f.counters.delivered),
    under: (f, r) => [r.delivered === null ? "of nothing sent" : `${percent(r.delivered)} of sent`],
    why: (f, r) => [
      `delivered ÷ sent = ${count(f.counters.delivered)} ÷ ${count(f.counters.sent)} = ${percent(r.delivered)}`,
      "Delivered: EMAIL_DELIVERED events.",
    ],
  },
  { title: "Open rate", tint: "opens", ...people("open", "uniqueOpens", "opens", "machineOpens") },
  { title: "Click rate", tint: "clicks", ...people("click", "uniqueClicks", "clicks", "machineClicks") },
  { title: "Reply rate", tint: "replies", ...people("reply", "uniqueReplies", "replies") },
  {
    title: "Bounce rate",
    tint: "bounces",
    rate: (r) => r.bounce,
    under: ({ counters: { bounces } }) => [`${count(bounces.hard)} hard`, `${count(bounces.soft)} soft`],
    why: ({ counters: { bounces, sent } }, r) => [
      `(hard + soft) ÷ sent = ${count(bounces.hard + bounces.soft)} ÷ ${count(sent)} = ${percent(r.bounce)}`,
      `Beside it: ${count(bounces.complaint)} complaints (${percent(r.complaint)} of the mails that arrived), ${count(bounces.suppression)} suppressions.`,
    ],
  },
];

/** The row of figures; show(figures) brings it up to date. */
export function headline() {
  const tiles = TILES.map(tile);
  const element = h("section", { class: "figures", "aria-labelledby": "headline" }, h("h2", { id: "headline", class: "unseen" }, "Headline figures"), ...tiles.map((t) => t.element));
  return {
    element,
    show(figures) {
      const r = rates(figures.counters);
      for (const one of tiles) one.show(figures, r);
    },
  };
}

function tile({ title, tint, value, rate, under, why }) {
  const number = h("p", { class: "value", "data-figure": title }, "–");
  const below = [h("span", {}, "\u00a0"), h("span")];
  const element = h("article", { class: "figure" });
  const mark = h("i", { "aria-hidden": "true" });
  mark.style.setProperty("--tint", `var(--${tint})`);
  const { button, text } = tip(element, title.toLowerCase());
  element.append(h("h3", {}, mark, title, button), number, h("p", { class: "under" }, ...below), text);
  return {
    element,
    show(figures, r) {
      const shown = value ? value(figures) : percent(rate(r));
      number.classList.toggle("long", shown.length > 8);
      setText(number, shown);
      const told = under(figures, r);
      for (const [index, place] of below.entries()) setText(place, told[index] ?? "");
      const [formula, ...more] = why(figures, r).filter(Boolean);
      const entire = [formula, ...more].join("\n");
      if (text.dataset.told === entire) return;
      text.dataset.told = entire;
      text.replaceChildren(h("b", {}, formula), ...more.map((line) => h("span", {}, line)));
    },
  };
}
