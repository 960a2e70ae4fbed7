// The one socket of the page: subscriptions, resuming, and how far behind it is.

import { toLogin } from "./api.js";

const PING_EVERY_MS = 2000;
const DEAD_AFTER_MS = 12_000;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
/** So many attempts in a row without a socket, and the page asks the API instead. */
const ATTEMPTS_BEFORE_POLLING = 4;

/**
 * A socket that is always there, or on its way back.
 *
 * state: "connecting", "live", "waiting" (for the next attempt), "polling" (no socket can
 * be had, so figures are asked for). Listeners hear "state" whenever it or lagMs changed.
 */
export class Live extends EventTarget {
  state = "connecting";
  lagMs = null;
  retryAt = 0;
  #socket = null;
  #attempts = 0;
  #pingedAt = 0;
  #heardAt = 0;
  #retry = null;
  #campaigns = new Map();
  #system = new Set();

  constructor(url) {
    super();
    this.url = url;
  }

  start() {
    this.#connect();
    setInterval(() => this.#watch(), PING_EVERY_MS);
    addEventListener("online", () => this.#again(0));
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && this.state !== "live") this.#again(0);
    });
  }

  /** Follow a campaign: take(event, data) gets its messages. Returns how to stop. */
  campaign(campaignId, take) {
    const entry = { take, cursor: null };
    this.#campaigns.set(campaignId, entry);
    this.#send(this.#subscription(campaignId, entry));
    return () => {
      this.#campaigns.delete(campaignId);
      this.#send({ action: "unsubscribe_campaign", campaignId });
    };
  }

  /** Follow the system: take(event, data). Returns how to stop. */
  system(take) {
    if (this.#system.size === 0) this.#send({ action: "subscribe_system" });
    this.#system.add(take);
    return () => this.#system.delete(take);
  }

  #subscription(campaignId, entry) {
    const cursor = entry.cursor === null ? {} : { cursor: entry.cursor };
    return { action: "subscribe_campaign", campaignId, detailed: true, ...cursor };
  }

  #connect() {
    const socket = new WebSocket(this.url);
    this.#socket = socket;
    socket.onopen = () => {
      this.#attempts = 0;
      this.#heardAt = performance.now();
      for (const [id, entry] of this.#campaigns) this.#send(this.#subscription(id, entry));
      if (this.#system.size > 0) this.#send({ action: "subscribe_system" });
      this.#ping();
      this.#is("live");
    };
    socket.onmessage = (message) => socket === this.#socket && this.#take(JSON.parse(message.data));
    socket.onclose = (close) => socket === this.#socket && this.#closed(close.code);
  }

  #closed(code) {
    this.#socket = null;
    this.lagMs = null;
    if (code === 4401) {
      toLogin();
      return;
    }
    this.#attempts += 1;
    const wait = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** (this.#attempts - 1));
    // Spread: after a restart of the service, all pages come back at once otherwise.
    this.#again(wait * (0.5 + Math.random() * 0.5));
    this.#is(this.#attempts >= ATTEMPTS_BEFORE_POLLING ? "polling" : "waiting");
  }

  #again(waitMs) {
    clearTimeout(this.#retry);
    if (this.#socket) return;
    this.retryAt = performance.now() + waitMs;
    this.#retry = setTimeout(() => this.#connect(), waitMs);
  }

  #take({ event, data, cursor }) {
    this.#heardAt = performance.now();
    if (event === "pong") {
      this.lagMs = this.#heardAt - this.#pingedAt;
      this.#pingedAt = 0;
      this.#is("live");
      return;
    }
    if (event === "progress_batch") {
      for (const [id, parts] of Map.groupBy(data.events, (part) => part.campaignId)) {
        this.#hand(id, event, { events: parts, dropped: data.dropped }, cursor);
      }
    } else if (data?.campaignId !== undefined) this.#hand(data.campaignId, event, data, cursor);
    else for (const take of this.#system) take(event, data);
  }

  #hand(campaignId, event, data, cursor) {
    const entry = this.#campaigns.get(campaignId);
    if (!entry) return;
    if (cursor !== undefined && cursor !== null) entry.cursor = cursor;
    entry.take(event, data);
  }

  #ping() {
    if (this.#pingedAt && this.#socket) return;
    this.#pingedAt = performance.now();
    this.#send({ action: "ping" });
  }

  /** An answer that is not there yet is a lag as well: what it has come to so far. */
  #watch() {
    if (this.state !== "live") return;
    const now = performance.now();
    if (this.#pingedAt) {
      this.lagMs = now - this.#pingedAt;
      this.#is("live");
      if (now - this.#heardAt > DEAD_AFTER_MS) this.#drop();
    } else this.#ping();
  }

  /** A connection whose other end is gone can take minutes to close: it is given up here. */
  #drop() {
    this.#socket.onclose = null;
    this.#socket.close();
    this.#closed(1006);
  }

  #send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #is(state) {
    this.state = state;
    if (state !== "live") this.#pingedAt = 0;
    this.dispatchEvent(new Event("state"));
  }
}
