// The reading API.

const TIMEOUT_MS = 10_000;

/** Why an answer could not be had; status 0 means that nobody answered. */
export class ApiError extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

/** Whether the service answered the last question; tells of a change. */
class Contact extends EventTarget {
  isThere = true;

  is(there) {
    if (there === this.isThere) return;
    this.isThere = there;
    this.dispatchEvent(new Event("change"));
  }
}

export const contact = new Contact();

/** A session that has ended is begun anew at the login, which leads back here. */
export function toLogin() {
  location.assign(`/dashboard/login${location.hash}`);
}

/** GET a path as JSON, also where the status is one that is expected. */
export async function get(path, { expect = [] } = {}) {
  let response;
  try {
    response = await fetch(path, {
      headers: { Accept: "application/json" },
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    contact.is(true);
  } catch (error) {
    contact.is(false);
    const slow = error.name === "TimeoutError";
    throw new ApiError(0, slow ? "The service did not answer within 10 s." : "The service cannot be reached.");
  }
  if (response.status === 401) toLogin();
  if (response.ok || expect.includes(response.status)) return response.json();
  let text = "";
  try {
    text = (await response.json()).error ?? "";
  } catch { /* no JSON: the status must do */ }
  throw new ApiError(response.status, `The service answered ${response.status}${text ? `: ${text}` : ""}.`);
}

const campaign = (id) => `/campaigns/${encodeURIComponent(id)}`;

export const stats = (id) => get(`${campaign(id)}/stats`);
export const links = (id) => get(`${campaign(id)}/links`);
export const breakdown = (id) => get(`${campaign(id)}/breakdown`);
export const recentEvents = (id, limit) => get(`${campaign(id)}/events?limit=${limit}`);
export const metrics = () => get("/metrics/tracking");
export const health = () => get("/health/tracking", { expect: [503] });

export function campaigns(after) {
  return get(`/campaigns?limit=100${after ? `&after=${encodeURIComponent(after)}` : ""}`);
}

/** All buckets of a span; a span is chosen so that they are a few pages at most. */
export async function timeline(id, bucket, from, to) {
  const span = `bucket=${bucket}&from=${from.toISOString()}&to=${to.toISOString()}`;
  const items = [];
  let after = null;
  do {
    const more = after ? `&after=${encodeURIComponent(after)}` : "";
    const page = await get(`${campaign(id)}/timeline?${span}${more}`);
    items.push(...page.items);
    after = page.next;
  } while (after && items.length < 5000);
  return items;
}
