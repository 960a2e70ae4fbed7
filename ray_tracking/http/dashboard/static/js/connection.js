// Whether the page is live, and how far behind, where everybody sees it.

import { contact } from "./api.js";
import { h, setText } from "./dom.js";
import { seconds } from "./format.js";

const SLOW_MS = 2000;

/** Show the socket's state in the bar, and say aloud when it is lost and back. */
export function showConnection(live) {
  const place = document.getElementById("connection");
  const text = place.querySelector(".text");
  const notice = document.getElementById("notice");
  const spoken = document.getElementById("spoken");
  let before = "connecting";

  function show() {
    const { lagMs } = live;
    const state = live.state === "polling" && !contact.isThere ? "offline" : live.state;
    place.dataset.state = state === "live" && lagMs > SLOW_MS ? "waiting" : state;
    setText(text, words(state, live));
    place.title = HINTS[state];
    if (state === before) return;
    notice.hidden = !(state in NOTICES);
    notice.replaceChildren(h("span", {}, NOTICES[state] ?? ""));
    if (before === "live") spoken.textContent = "The live connection is lost; reconnecting.";
    else if (state === "live" && before !== "connecting") spoken.textContent = "Live again.";
    before = state;
  }

  live.addEventListener("state", show);
  contact.addEventListener("change", show);
  setInterval(() => live.state === "waiting" && show(), 500);
}

const HINTS = {
  connecting: "Opening the live connection",
  live: "Events arrive as they happen. The time is how long a message takes from here to the service and back.",
  waiting: "The live connection is lost. What is missed meanwhile is fetched as soon as it is back.",
  polling: "No live connection can be had. The page asks every few seconds, and goes on trying.",
  offline: "The service does not answer. The page goes on trying.",
};
const NOTICES = {
  polling: "No live connection can be had. Figures are asked for every few seconds instead.",
  offline: "The service does not answer. These are the last figures that it told; the page goes on trying.",
};

function words(state, { lagMs, retryAt }) {
  if (state === "live") return lagMs === null ? "live" : `live · ${lagMs < 100 ? "<0.1 s" : seconds(lagMs)}`;
  if (state !== "waiting") return state;
  const left = Math.ceil((retryAt - performance.now()) / 1000);
  return left > 0 ? `reconnecting in ${left} s` : "reconnecting";
}
