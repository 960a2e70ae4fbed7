// The feed: events as they arrive, and readable however many they are.

import * as api from "./api.js";
import { h, panel, setText } from "./dom.js";
import { country, count, day, dayAndMinute, minute, second } from "./format.js";
import { atMostEvery } from "./frame.js";
import { TYPES } from "./figures.js";

const DRAW_EVERY_MS = 400;
/** New lines at a time: more cannot be read, so the rest is counted. */
const LINES_AT_ONCE = 3;
const KEPT = 60;
const OLD_MS = 60_000;

/** A change of status is not missed; of the rest, a fair sample is shown. */
const ALWAYS = new Set(["CAMPAIGN_STATUS_CHANGE", "ACCOUNT_HEALTH_UPDATE"]);

/** The panel; take(event) for each event. */
export function feed(campaignId) {
  const state = h("span", { class: "feed-state" });
  const pause = h("button", { type: "button", class: "quiet small", "aria-pressed": "false", onclick: toggle }, "Pause");
  const { element, body } = panel("Live feed", state, pause);
  element.classList.add("feed-panel");
  const list = h("ol", { class: "feed", tabindex: "0", "aria-label": "Events, newest first" });
  body.append(list);
  let waiting = [];
  let skipped = 0;
  let seen = 0;
  let held = false;
  let reading = false;
  const draw = atMostEvery(DRAW_EVERY_MS, show);

  function toggle() {
    held = !held;
    pause.setAttribute("aria-pressed", String(held));
    show();
  }
  function read(on) {
    reading = on;
    show();
  }
  list.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && read(true));
  list.addEventListener("pointerleave", () => read(document.activeElement === list));
  list.addEventListener("focus", () => read(true));
  list.addEventListener("blur", () => read(false));

  function show() {
    if (held || reading) {
      const missed = waiting.length + skipped;
      setText(state, `${held ? "Paused" : "Paused while you read"}${missed ? ` · ${count(missed)} new` : ""}`);
      return;
    }
    setText(state, "");
    if (waiting.length === 0) return;
    const lines = waiting.reverse().map(line);
    if (skipped) lines.push(h("li", { class: "skipped" }, `${count(skipped)} more`));
    waiting = [];
    skipped = 0;
    seen = 0;
    list.querySelector(".empty")?.remove();
    list.prepend(...lines);
    while (list.children.length > KEPT) list.lastChild.remove();
  }

  function take(told) {
    const event = { ...told, arrivedAt: new Date() };
    seen += 1;
    if (waiting.length < LINES_AT_ONCE) waiting.push(event);
    else {
      // Each event of the interval has the same chance to be one of the lines.
      const at = ALWAYS.has(event.eventType) ? 0 : Math.floor(Math.random() * seen);
      if (at < waiting.length && !ALWAYS.has(waiting[at].eventType)) {
        waiting.splice(at, 1);
        waiting.push(event);
      }
      skipped += 1;
    }
    draw();
  }

  return {
    element,
    take,
    /** Events that are known only by their number. */
    skip(n) {
      skipped += n;
    },
    /** The last ones before the page was opened. */
    async fill() {
      const { items } = await api.recentEvents(campaignId, 20);
      if (list.children.length || waiting.length) return;
      list.append(...items.map((item) => line({ ...item.eventData, eventType: item.eventType, arrivedAt: new Date(item.receivedAt) })));
      if (items.length === 0) list.append(h("li", { class: "skipped empty" }, "No events yet"));
    },
    close: () => draw.cancel(),
  };
}

/** Lines stand in the order of arrival; an event that is older says from when it is. */
function line(event) {
  const { arrivedAt, timestamp } = event;
  const late = timestamp && Math.abs(arrivedAt - new Date(timestamp)) > OLD_MS;
  const about = [details(event), late ? `from ${day(timestamp) === day(arrivedAt) ? minute(timestamp) : dayAndMinute(timestamp)}` : null].filter(Boolean).join(" · ");
  return h(
    "li",
    {},
    h("time", { datetime: arrivedAt.toISOString() }, second(arrivedAt)),
    h("span", { class: "type", "data-type": event.eventType }, h("i", { "aria-hidden": "true" }), TYPES[event.eventType] ?? event.eventType),
    h("span", { class: "what", title: [event.leadId, about].filter(Boolean).join(" · ") }, event.leadId ?? event.accountId ?? "", about ? h("span", {}, ` · ${about}`) : null),
  );
}

function details({ linkUrl, deviceInfo, locationInfo, bounceType, newStatus }) {
  const place = locationInfo?.country ? country(locationInfo.country) : null;
  const device = deviceInfo?.type ?? null;
  return [bounceType, newStatus, linkUrl?.replace(/^https?:\/\//, ""), device, place].filter(Boolean).join(" · ");
}
