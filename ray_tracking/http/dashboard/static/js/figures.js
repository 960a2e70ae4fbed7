// A campaign's figures: how they are kept, and the one formula of each rate.

/** The counters that stand in every live frame. */
const COUNTERS = ["sent", "delivered", "opens", "uniqueOpens", "clicks", "uniqueClicks", "replies", "uniqueReplies"];
const BOUNCES = ["hard", "soft", "complaint", "suppression"];

/**
 * What is shown of a campaign. A figure never goes back, whoever tells it and in whatever
 * order it arrives, unless it is said to be a correction.
 */
export class Figures {
  constructor() {
    this.counters = Object.fromEntries(COUNTERS.map((name) => [name, 0]));
    this.counters.bounces = Object.fromEntries(BOUNCES.map((name) => [name, 0]));
    this.machineOpens = 0;
    this.machineClicks = 0;
    this.firstEventAt = null;
    this.lastEventAt = null;
  }

  /** Take counters, of a frame or of a snapshot; says whether any figure is another now. */
  take(counters, { correction = false } = {}) {
    let changed = settle(this.counters, counters, COUNTERS, correction);
    if (counters.bounces) changed = settle(this.counters.bounces, counters.bounces, BOUNCES, correction) || changed;
    return changed;
  }

  /** Take the answer of the reading API, which knows more than the counters. */
  takeStats(stats, options = {}) {
    let changed = this.take(stats, options);
    changed = settle(this, stats, ["machineOpens", "machineClicks"], true) || changed;
    changed = this.takeTime(stats.firstEventAt) || changed;
    return this.takeTime(stats.lastEventAt) || changed;
  }

  /** There was an event at this time; says whether it was before the first or after the last. */
  takeTime(time) {
    if (!time) return false;
    const moment = new Date(time);
    const isFirst = !this.firstEventAt || moment < new Date(this.firstEventAt);
    const isLast = !this.lastEventAt || moment > new Date(this.lastEventAt);
    if (isFirst) this.firstEventAt = time;
    if (isLast) this.lastEventAt = time;
    return isFirst || isLast;
  }

  get isEmpty() {
    const { bounces, ...plain } = this.counters;
    return !this.lastEventAt && ![...Object.values(plain), ...Object.values(bounces)].some(Boolean);
  }
}

function settle(shown, told, names, mayGoBack) {
  let changed = false;
  for (const name of names) {
    const value = told[name];
    if (value === undefined || value === shown[name] || (value < shown[name] && !mayGoBack)) continue;
    shown[name] = value;
    changed = true;
  }
  return changed;
}

const over = (part, entire) => (entire ? part / entire : null);

/** The rates, by the formulas of the reading API. */
export function rates(counters) {
  const { sent, delivered, bounces } = counters;
  const reached = delivered || sent;
  return {
    delivered: over(delivered, sent),
    open: over(counters.uniqueOpens, reached),
    click: over(counters.uniqueClicks, reached),
    reply: over(counters.uniqueReplies, reached),
    bounce: over(bounces.hard + bounces.soft, sent),
    complaint: over(bounces.complaint, reached),
  };
}

/** What the rates of people are of: a word for the formulas. */
export const reachedName = (counters) => (counters.delivered ? "delivered" : "sent");
export const reachedCount = (counters) => counters.delivered || counters.sent;

/** Names of event types, as they stand in the feed and in legends. */
export const TYPES = {
  EMAIL_SENT: "Sent",
  EMAIL_DELIVERED: "Delivered",
  EMAIL_OPEN: "Open",
  LINK_CLICK: "Click",
  EMAIL_REPLY: "Reply",
  EMAIL_BOUNCE: "Bounce",
  CAMPAIGN_STATUS_CHANGE: "Status",
  ACCOUNT_HEALTH_UPDATE: "Account",
};
