// What a campaign is made of: links, devices, countries, bounces. Tables with shares.

import * as api from "./api.js";
import { h, panel, problem } from "./dom.js";
import { count, country, percent } from "./format.js";
import { repeat } from "./repeat.js";

const EVERY_MS = 4000;
const SHOWN = 8;
const BOUNCES = {
  hard: ["Hard", "The address does not exist"],
  soft: ["Soft", "Not now: a full mailbox, a server that was busy"],
  complaint: ["Complaint", "Marked as spam by the reader"],
  suppression: ["Suppression", "Not sent: the address is on a suppression list"],
};

/** The panels, and changed() which has them ask again soon. */
export function shares(campaignId) {
  const links = section("Links", ["Link", "Clicks", "Unique"], "No clicks yet");
  const devices = section("Devices", ["Device", "Events", "Share"], "Nothing is known of devices yet");
  const countries = section("Countries", ["Country", "Events", "Share"], "Nothing is known of places yet");
  const bounces = section("Bounces", ["Class", "Bounces", "Share"], "No bounces");
  let stale = true;

  const asking = repeat(EVERY_MS, async () => {
    if (!stale) return;
    stale = false;
    const all = await Promise.allSettled([askLinks(), askBreakdown()]);
    if (all.some(({ status }) => status === "rejected")) {
      stale = true;
      throw new Error("asked again later");
    }
  });

  async function askLinks() {
    try {
      const { items } = await api.links(campaignId);
      const top = Math.max(...items.map((item) => item.clicks), 1);
      links.show(
        items.map(({ linkUrl, linkId, clicks, uniqueClicks }) => ({
          name: h("span", { title: linkUrl }, shortUrl(linkUrl), linkId ? h("span", { class: "muted" }, ` · ${linkId}`) : null),
          cells: [count(clicks), count(uniqueClicks)],
          share: clicks / top,
        })),
      );
    } catch (error) {
      links.fail(error, asking);
      throw error;
    }
  }

  async function askBreakdown() {
    try {
      const found = await api.breakdown(campaignId);
      devices.show(parts(found.devices, deviceName));
      countries.show(parts(found.countries, country));
      const classes = Object.entries(found.bounces).map(([name, n]) => ({ name, count: n }));
      bounces.show(classes.some((one) => one.count) ? parts(classes, (name) => BOUNCES[name]?.[0] ?? name, bounceHint) : []);
    } catch (error) {
      for (const one of [devices, countries, bounces]) one.fail(error, asking);
      throw error;
    }
  }

  return {
    links: links.element,
    others: h("div", { class: "stack" }, devices.element, countries.element, bounces.element),
    devices: devices.element,
    countries: countries.element,
    bounces: bounces.element,
    changed() {
      stale = true;
    },
    close: () => asking.stop(),
  };
}

const deviceName = (name) => (name ? name[0].toUpperCase() + name.slice(1) : "Unknown");
const bounceHint = (name) => BOUNCES[name]?.[1] ?? null;

function parts(items, label, hint = () => null) {
  const all = items.reduce((sum, item) => sum + item.count, 0);
  return items.map((item) => ({
    name: h("span", { title: hint(item.name) }, label(item.name ?? "Unknown")),
    cells: [count(item.count), percent(all ? item.count / all : null)],
    share: all ? item.count / all : 0,
  }));
}

function shortUrl(text) {
  return text.replace(/^https?:\/\/(www\.)?/, "").replace(/\/$/, "");
}

function section(title, columns, none) {
  const { element, body } = panel(title);
  const rows = h("tbody");
  const head = columns.map((name, index) => h("th", { scope: "col", class: index ? "number" : null }, name));
  const table = h("table", {}, h("caption", { class: "unseen" }, title), h("thead", {}, h("tr", {}, ...head)), rows);
  const more = h("button", { type: "button", class: "quiet small", onclick: () => toggle() });
  let all = [];
  let open = false;
  body.append(h("p", { class: "empty" }, "Loading"));

  function toggle() {
    open = !open;
    draw();
  }

  function draw() {
    const shown = open ? all : all.slice(0, SHOWN);
    rows.replaceChildren(...shown.map(row));
    more.textContent = open ? "Show fewer" : `Show all ${count(all.length)}`;
    more.setAttribute("aria-expanded", String(open));
    more.hidden = all.length <= SHOWN;
    const had = document.activeElement === more;
    body.replaceChildren(all.length ? table : h("p", { class: "empty" }, none), more);
    if (had) more.focus();
  }

  return {
    element,
    show(items) {
      all = items;
      draw();
    },
    fail(error, asking) {
      if (all.length === 0) body.replaceChildren(problem(error.message, asking.now));
    },
  };
}

function row({ name, cells, share }) {
  const bar = h("meter", { min: "0", max: "1", value: String(share), "aria-hidden": "true" });
  return h("tr", {}, h("th", { scope: "row", class: "name" }, name, bar), ...cells.map((text) => h("td", { class: "number" }, text)));
}
