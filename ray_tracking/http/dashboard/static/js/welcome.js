// What to do first, where there is nothing to see yet.

import { h } from "./dom.js";

const example = (campaignId) =>
  JSON.stringify({
    eventType: "EMAIL_OPEN",
    eventData: { campaignId, leadId: "ada", emailId: "mail-1", timestamp: new Date().toISOString().replace(/\.\d+/, "") },
  });

const inShell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** Two ways to a first event, ready to be copied. */
export function welcome(title, campaignId) {
  const curl = `curl ${location.origin}/events \\\n  -H 'Content-Type: application/json' \\\n  -d ${inShell(example(campaignId))}`;
  const key = document.body.dataset.session === "yes";
  const simulate = `ray-tracking simulate --url ${location.origin} --rate 100`;
  return h(
    "section",
    { class: "panel welcome" },
    h("h2", {}, title),
    h("p", { class: "muted" }, "It appears here by itself, a moment after its first event."),
    h(
      "ol",
      {},
      h("li", {}, h("h3", {}, "Send an event"), copyable(key ? curl.replace(" \\\n", " \\\n  -H 'Authorization: Bearer YOUR_KEY' \\\n") : curl, "the command that sends an event")),
      h("li", {}, h("h3", {}, "Or play whole campaigns, with sends, opens, clicks and bounces"), copyable(key ? `${simulate} --api-key YOUR_KEY` : simulate, "the command that plays campaigns")),
    ),
  );
}

function copyable(text, about) {
  const code = h("code", {}, text);
  const button = h("button", { type: "button", class: "plain", "aria-label": `Copy ${about}`, onclick: copy }, "Copy");
  async function copy() {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      // Without https there is no clipboard: the text is chosen, and can be copied by hand.
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  }
  return h("div", { class: "copy" }, h("pre", {}, code), button);
}
