// The system: is it well, how much goes through it, and what waits.

import * as api from "./api.js";
import { chart } from "./chart.js";
import { h, panel, problem, setText } from "./dom.js";
import { bytes, compact, count, duration, milliseconds, second, minute } from "./format.js";
import { repeat } from "./repeat.js";
import { tip } from "./tips.js";

const EVERY_MS = 2000;
const KEPT = 450;
const TONES = { healthy: "good", degraded: "warn", unhealthy: "bad", normal: "good", warning: "warn", critical: "bad", emergency: "bad", closed: "good", half_open: "warn", open: "bad" };

const backlog = (s) => s.logLag + s.bufferSize;

/** Each: title, value of the stats (s) and the health (c: its components), a line below, how it is counted. */
const TILES = [
  ["Throughput", (s) => [count(s.currentThroughput), "/s"], (s) => `peak ${count(s.peakThroughput)}/s`, "Events accepted in a second, over the last 5 s. Peak: since the start."],
  ["Latency", (s) => [milliseconds(s.averageProcessingTime)], () => "to acknowledgement", "The mean over the last 60 s, from the request to the answer that says the event is durable."],
  ["Backlog", (s) => [count(backlog(s))], (s) => `level ${s.backpressureLevel}`, "Events in the log that are not rows yet, and events in memory. The level follows from it."],
  ["Mode", (s) => [word(s.processingMode)], (s) => `${count(s.batchesProcessed)} batches`, "REALTIME stores each event at once, BATCH fills batches, HYBRID does both by priority."],
  ["Dead letters", (s) => [count(s.deadLetters)], (s) => `${count(s.processingErrors)} errors`, "Events that Postgres refused. See ray-tracking dead-letters."],
  ["Connections", (s, c) => [count(s.liveConnections ?? c.websocket?.connectedClients)], () => "live clients", "Sockets that are open now, this page's among them."],
];

const BOOKS = [
  ["Events stored", "eventsProcessed"],
  ["Duplicates", "duplicatesDetected"],
  ["Refused as invalid", "validationErrors"],
  ["Over the rate", "rateLimited"],
  ["Refused when full", "backpressureEvents"],
  ["Parked", "parked"],
  ["In the spool", "spooled"],
  ["Waiting in the log", "logLag"],
  ["In memory", "bufferSize"],
  ["Answered unconfirmed", "trackingUnconfirmed"],
  ["Lost hits", "trackingLost"],
];

/** The view; returns how to close it. */
export function openSystem(main, live) {
  const overall = h("span", { class: "badge" }, "asking");
  const about = h("p", { class: "muted" }, "\u00a0");
  const trouble = h("div", { hidden: true });
  const tiles = TILES.map(tile);
  const rate = trend("Throughput", [{ label: "Accepted per second", tint: "opens" }]);
  const waiting = trend("Backlog", [{ label: "Events waiting", tint: "replies" }]);
  const parts = table("Health", ["Part", "State"]);
  const memory = table("Memory", ["Process", "Resident"]);
  const books = table("Counts", ["Since the start, and now", "Events"]);
  const breakers = table("Circuit breakers", ["Before", "State"]);
  main.append(
    h("div", { class: "head" }, h("div", {}, h("h1", {}, "System"), about), overall),
    trouble,
    h("section", { class: "figures", "aria-labelledby": "headline" }, h("h2", { id: "headline", class: "unseen" }, "Headline figures"), ...tiles.map((one) => one.element)),
    h("div", { class: "pair" }, rate.element, waiting.element),
    h("div", { class: "pair trio" }, parts.element, books.element, h("div", { class: "stack" }, memory.element, breakers.element)),
  );
  const history = { times: [], rate: [], waiting: [] };
  let components = {};

  function showStats(stats) {
    for (const one of tiles) one.show(stats, components);
    const redis = Object.entries(stats.redisStatus ?? {}).map(([name, state]) => `${name} ${state}`);
    setText(about, `Up for ${duration(stats.uptime)}${redis.length ? ` · Redis: ${redis.join(", ")}` : ""}`);
    books.show(BOOKS.map(([label, name]) => [label, count(stats[name])]));
    const actors = Object.entries(stats.memoryUsage?.perActor ?? {}).sort((a, b) => b[1] - a[1]);
    memory.show([["All together", bytes(stats.memoryUsage?.rss)], ...actors.map(([name, size]) => [name, bytes(size)])]);
    breakers.show(Object.entries(stats.circuitBreakers ?? {}).map(([name, one]) => [name === "redis" ? "Redis" : "Postgres", badge(one.state, one.failures ? ` · ${count(one.failures)} failures` : "")]));
    history.times.push(Date.now() / 1000);
    history.rate.push(stats.currentThroughput);
    history.waiting.push(backlog(stats));
    for (const values of Object.values(history)) if (values.length > KEPT) values.shift();
    rate.show(history.times, history.rate);
    waiting.show(history.times, history.waiting);
  }

  function showHealth(health) {
    components = health.components;
    setText(overall, health.overall);
    overall.dataset.tone = TONES[health.overall];
    const rows = Object.entries(components).map(([name, part]) => [PARTS[name] ?? name, badge(part.status ?? "unknown", [part.error, part.action].filter(Boolean).map((text) => ` · ${text}`).join(""))]);
    parts.show(rows);
  }

  const asking = repeat(EVERY_MS, async () => {
    try {
      const [stats, health] = await Promise.all([api.metrics(), api.health()]);
      showHealth(health);
      showStats(stats);
      trouble.hidden = true;
    } catch (error) {
      trouble.replaceChildren(problem(error.message, asking.now));
      trouble.hidden = false;
      throw error;
    }
  });
  // A change of level or mode is shown when it happens, not when it is asked for.
  const stop = live.system((event) => {
    if (event === "backpressure_changed" || event === "processing_mode_changed") asking.now();
  });

  return () => {
    asking.stop();
    stop();
    rate.close();
    waiting.close();
  };
}

const PARTS = { redis: "Event log (Redis)", database: "Postgres", websocket: "Live connections", queues: "Queues", memory: "Memory", performance: "Latency", circuitBreakers: "Circuit breakers", spool: "Spool", shards: "Shards", writers: "Writers", broadcaster: "Broadcaster" };
const word = (text) => (text ? text[0].toUpperCase() + text.slice(1).toLowerCase() : "–");

function badge(state, more) {
  return h("span", {}, h("span", { class: "badge", "data-tone": TONES[state] ?? null }, state.replace("_", " ")), h("span", { class: "muted small" }, more));
}

function tile([title, value, under, why]) {
  const number = h("p", { class: "value", "data-figure": title }, "–");
  const below = h("p", { class: "under" }, "\u00a0");
  const element = h("article", { class: `figure` });
  const { button, text } = tip(element, title.toLowerCase());
  text.append(h("span", {}, why));
  element.append(h("h3", {}, title, button), number, below, text);
  return {
    element,
    show(stats, components) {
      const [main, unit] = value(stats, components);
      setText(number, `${main}${unit ?? ""}`);
      setText(below, under(stats, components));
    },
  };
}

function trend(title, series) {
  const { element, body } = panel(title);
  const lines = chart(series, {
    label: `${title} since this page was opened`,
    height: 170,
    axis: compact,
    value: count,
    time: (ms, spanMs) => (spanMs < 300_000 ? second(ms) : minute(ms)),
    row: second,
    summary: (values) => values.at(-1),
  });
  body.append(lines.element);
  return {
    element,
    show: (times, values) => lines.show([...times], [[...values]], "Since this page was opened, at most 15 minutes"),
    close: lines.close,
  };
}

function table(title, columns) {
  const { element, body } = panel(title);
  const rows = h("tbody");
  const head = columns.map((name, index) => h("th", { scope: "col", class: index && title !== "Health" ? "number" : null }, name));
  body.append(h("table", {}, h("caption", { class: "unseen" }, title), h("thead", {}, h("tr", {}, ...head)), rows));
  return {
    element,
    show(items) {
      rows.replaceChildren(
        ...items.map(([name, value]) => h("tr", {}, h("th", { scope: "row", class: title === "Health" ? "part" : "name" }, name), h("td", { class: title === "Health" ? "" : "number" }, value))),
      );
    },
  };
}
