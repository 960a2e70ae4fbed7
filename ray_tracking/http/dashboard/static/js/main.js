// The page: which view the address asks for, and what all views share.

import { openCampaign } from "./campaign.js";
import { openCampaigns } from "./campaigns.js";
import { showConnection } from "./connection.js";
import { h } from "./dom.js";
import { Live } from "./live.js";
import { openSystem } from "./system.js";
import { startTheme } from "./theme.js";

const main = document.getElementById("main");
const live = new Live(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
let close = () => {};
let shown = null;

/** An address such as #/campaign/spring?bucket=hour: the view, its name, its options. */
function read(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [view, ...rest] = path.split("/");
  let name = rest.join("/");
  try {
    name = decodeURIComponent(name);
  } catch { /* a stray percent sign: it is taken as it stands */ }
  return { view, name, options: new URLSearchParams(query) };
}

function open() {
  const { view, name, options } = read(location.hash);
  const place = `${view}/${name}`;
  if (place === shown) return; // only an option is another
  const first = shown === null;
  shown = place;
  close();
  main.replaceChildren();
  for (const link of document.querySelectorAll("[data-nav]")) {
    const here = link.dataset.nav === (view === "system" ? "system" : "campaigns");
    if (here) link.setAttribute("aria-current", view === "campaign" ? "true" : "page");
    else link.removeAttribute("aria-current");
  }
  if (view === "campaign" && name) close = openCampaign(main, live, name, options);
  else if (view === "system") close = openSystem(main, live);
  else if (view === "") close = openCampaigns(main, live);
  else close = openNothing();
  const title = main.querySelector("h1").textContent;
  document.title = `${title} · ray-tracking`;
  // As after the loading of a page: reading begins at its top.
  if (!first) main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

function openNothing() {
  main.append(
    h("h1", {}, "There is nothing here"),
    h("p", {}, "The address leads nowhere. ", h("a", { href: "#/" }, "All campaigns")),
  );
  return () => {};
}

startTheme();
showConnection(live);
document.getElementById("logout").hidden = document.body.dataset.session !== "yes";
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the fragment is the address of the view
  main.focus();
});
addEventListener("hashchange", open);
open();
live.start();
