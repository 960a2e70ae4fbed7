// A campaign's timeline: its buckets as the service counts them, or this minute, live.

import * as api from "./api.js";
import { chart } from "./chart.js";
import { h, panel } from "./dom.js";
import { count, date, day, dayAndMinute, minute, second } from "./format.js";
import { Beat } from "./beat.js";
import { repeat } from "./repeat.js";

const SERIES = [
  { label: "Sent", tint: "sent", type: "EMAIL_SENT", counter: (c) => c.sent },
  { label: "Delivered", tint: "delivered", type: "EMAIL_DELIVERED", counter: (c) => c.delivered, off: true },
  { label: "Opens", tint: "opens", type: "EMAIL_OPEN", counter: (c) => c.opens },
  { label: "Clicks", tint: "clicks", type: "LINK_CLICK", counter: (c) => c.clicks },
  { label: "Replies", tint: "replies", type: "EMAIL_REPLY", counter: (c) => c.replies },
  { label: "Bounces", tint: "bounces", type: "EMAIL_BOUNCE", counter: (c) => Object.values(c.bounces).reduce((a, b) => a + b) },
];
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** What can be chosen: the size of a bucket, how many are shown, how often they are asked for. */
const CHOICES = {
  live: { label: "Live", size: 1000, shown: 180 },
  minute: { label: "Minutes", size: MINUTE, shown: 180, everyMs: 2000 },
  hour: { label: "Hours", size: HOUR, shown: 96, everyMs: 10_000 },
  day: { label: "Days", size: DAY, shown: 90, everyMs: 30_000 },
};
const FEWEST_SHOWN = 15;

/** A span in words, whose day is said once. */
function span(from, to) {
  if (to - from > 4 * DAY) return `${day(from)} to ${day(to - 1)}`;
  return `${dayAndMinute(from)} to ${date(from) === date(to) ? minute(to) : dayAndMinute(to)}`;
}

/** The finest buckets in which the whole campaign can be seen. */
function fitting({ firstEventAt, lastEventAt }) {
  if (!firstEventAt) return "minute";
  const lasted = new Date(lastEventAt) - new Date(firstEventAt);
  return Object.keys(CHOICES).find((key) => key !== "live" && lasted < CHOICES[key].size * CHOICES[key].shown) ?? "day";
}

/** The span to show: to now, or where the campaign is over, to its end. */
function frame({ firstEventAt, lastEventAt }, { size, shown }, now) {
  const last = lastEventAt ? new Date(lastEventAt).getTime() : now;
  const end = last < now - size * shown ? last : now;
  const to = (Math.floor(end / size) + 1) * size;
  const first = firstEventAt ? Math.floor(new Date(firstEventAt).getTime() / size) * size : to;
  const from = Math.min(Math.max(to - size * shown, first), to - size * FEWEST_SHOWN);
  return { from, to };
}

/**
 * The timeline's panel. show(figures) after each change of the figures; the first one
 * decides what is shown unless the address says so.
 */
export function timeline(campaignId, asked) {
  const lines = chart(SERIES, {
    label: "Events of the campaign over time",
    height: 260,
    axis: count,
    time: (ms, spanMs) => (chosen === "day" ? date(ms) : chosen === "live" && spanMs < 5 * MINUTE ? second(ms) : spanMs > DAY ? dayAndMinute(ms) : minute(ms)),
    row: (ms) => (chosen === "day" ? day(ms) : chosen === "live" ? second(ms) : dayAndMinute(ms)),
    summary: (values) => values.reduce((a, b) => a + (b ?? 0), 0),
  });
  const beat = new Beat(SERIES.map((one) => one.counter), CHOICES.live.shown);
  const radios = Object.entries(CHOICES).map(([key, { label }]) => {
    const input = h("input", { type: "radio", name: "bucket", value: key, onchange: () => choose(key, true) });
    return h("label", {}, input, label);
  });
  const { element, body } = panel("Timeline", h("div", { class: "choice", role: "radiogroup", "aria-label": "Buckets" }, ...radios));
  body.append(lines.element);
  let chosen = null;
  let asking = null;
  let latest = null;
  let stale = true;

  function choose(key, byHand) {
    chosen = key;
    for (const label of radios) label.firstChild.checked = label.firstChild.value === key;
    if (byHand) {
      const [path] = location.hash.split("?");
      history.replaceState(null, "", `${path}?bucket=${key}`);
    }
    asking?.stop();
    stale = true;
    if (key === "live") {
      tick();
      const timer = setInterval(tick, 1000);
      asking = { stop: () => clearInterval(timer) };
    } else asking = repeat(CHOICES[key].everyMs, refresh);
  }

  function tick() {
    const now = Date.now();
    const { times, values } = beat.read(now);
    lines.show(times, values, "Events in each second, as they arrive here");
  }

  let windowTo = 0;
  async function refresh() {
    const choice = CHOICES[chosen];
    const { from, to } = frame(latest, choice, Date.now());
    if (!stale && to === windowTo) return;
    stale = false;
    const before = chosen;
    let items;
    try {
      items = await api.timeline(campaignId, chosen, new Date(from), new Date(to));
    } catch (error) {
      stale = true;
      lines.show([], SERIES.map(() => []), "", error.message);
      throw error;
    }
    if (before !== chosen) return;
    windowTo = to;
    const found = new Map(items.map((item) => [new Date(item.bucketStart).getTime(), item.counts]));
    const times = [];
    for (let at = from; at < to; at += choice.size) times.push(at);
    const values = SERIES.map(({ type }) => times.map((at) => found.get(at)?.[type] ?? 0));
    const words = `Events in each ${chosen} · ${span(from, to)}`;
    lines.show(times.map((ms) => ms / 1000), values, words, found.size ? "" : "No events in this time");
  }

  return {
    element,
    show(figures) {
      latest = figures;
      stale = true;
      beat.take(figures.counters, Date.now());
      if (chosen === null) choose(asked in CHOICES ? asked : fitting(figures), false);
    },
    close() {
      asking?.stop();
      lines.close();
    },
  };
}
