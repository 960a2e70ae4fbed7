// One campaign: its figures, its timeline, what it is made of, and its events as they come.

import * as api from "./api.js";
import { h, problem, setText } from "./dom.js";
import { ago, count, dayAndMinute } from "./format.js";
import { atMostEvery } from "./frame.js";
import { feed } from "./feed.js";
import { Figures } from "./figures.js";
import { headline } from "./headline.js";
import { repeat } from "./repeat.js";
import { shares } from "./shares.js";
import { timeline } from "./timeline.js";
import { welcome } from "./welcome.js";

const ASK_EVERY_MS = 10_000;
const POLL_EVERY_MS = 3000;
/** Figures that change more often than this cannot be read. */
const DRAW_EVERY_MS = 100;
const SPEAK_EVERY_MS = 15_000;

/** The view; returns how to close it. */
export function openCampaign(main, live, campaignId, options) {
  const figures = new Figures();
  const head = headline();
  const lines = timeline(campaignId, options.get("bucket"));
  const parts = shares(campaignId);
  const events = feed(campaignId);
  const about = h("p", { class: "muted" }, "\u00a0");
  const trouble = h("div", { hidden: true });
  const hint = h("div", { hidden: true });
  const content = h(
    "div",
    { class: "stack" },
    head.element,
    h("div", { class: "columns" }, h("div", { class: "stack" }, lines.element, parts.links), events.element),
    h("div", { class: "pair three" }, parts.devices, parts.countries, parts.bounces),
  );
  main.append(
    h("div", { class: "head" }, h("div", {}, h("a", { class: "crumb", href: "#/" }, "← All campaigns"), h("h1", {}, campaignId), about)),
    trouble,
    hint,
    content,
  );
  let told = false;

  const speak = atMostEvery(SPEAK_EVERY_MS, () => {
    const { counters: c } = figures;
    document.getElementById("spoken").textContent = `${campaignId}: ${count(c.sent)} sent, ${count(c.opens)} opens, ${count(c.clicks)} clicks, ${count(c.replies)} replies.`;
  });

  function showTimes() {
    const { firstEventAt, lastEventAt } = figures;
    setText(about, firstEventAt ? `First event ${dayAndMinute(firstEventAt)} · last event ${ago(lastEventAt)}` : "No events yet");
  }

  function show() {
    head.show(figures);
    lines.show(figures);
    showTimes();
    const empty = told && figures.isEmpty;
    if (empty && hint.hidden) hint.replaceChildren(welcome("No event of this campaign yet", campaignId));
    hint.hidden = !empty;
    content.hidden = empty;
  }

  const draw = atMostEvery(DRAW_EVERY_MS, show);

  function changed() {
    parts.changed();
    draw();
    speak();
  }

  const stop = live.campaign(campaignId, (event, data) => {
    if (event === "subscribed") {
      // What was missed may have been a correction.
      const options = { correction: resumed && !data.recovered };
      resumed = true;
      if (data.snapshot && figures.takeStats(data.snapshot, options)) changed();
      return;
    }
    for (const part of data.events ?? [data]) take(part);
    if (data.dropped) events.skip(data.dropped);
    changed();
  });
  let resumed = false;

  function take(part) {
    if (part.counters) figures.take(part.counters, part);
    figures.takeTime(part.lastEvent?.timestamp);
    const event = part.event ?? (part.leadId ? part : null);
    if (event) events.take(event);
  }

  // The API knows what frames do not tell: machines, first and last times. Without a
  // socket it tells everything.
  let asked = 0;
  const asking = repeat(POLL_EVERY_MS, async () => {
    const now = performance.now();
    if (live.state !== "polling" && now - asked < ASK_EVERY_MS && told) return;
    asked = now;
    try {
      const stats = await api.stats(campaignId);
      const first = !told;
      told = true;
      trouble.hidden = true;
      if (figures.takeStats(stats) || first) changed();
      showTimes(); // they grow older by themselves
    } catch (error) {
      if (!told || error.status) trouble.replaceChildren(problem(error.message, asking.now));
      trouble.hidden = told && !error.status; // the bar tells that nobody answers
      asked = 0;
      throw error;
    }
  });
  events.fill().catch(() => {}); // the figures say already that nobody answers

  return () => {
    stop();
    asking.stop();
    draw.cancel();
    speak.cancel();
    for (const one of [lines, parts, events]) one.close();
  };
}
