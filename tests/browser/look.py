"""What is wrong with how a page looks: clipped, overlapping, not accessible, slow."""

from __future__ import annotations

from typing import Any

from tests.browser.chromium import AXE, Watched, missing

_CLIPPED = """() => {
  const wrong = [];
  if (document.documentElement.scrollWidth > innerWidth) {
    wrong.push(`the page is ${document.documentElement.scrollWidth} wide, in ${innerWidth}`);
  }
  // What scrolls, ends in an ellipsis or is for screen readers alone is cut off on purpose.
  const onPurpose = ".feed *, .scroll *, .unseen, .unseen *, .skip, .tip, .uplot *, svg *";
  for (const element of document.querySelectorAll("body *")) {
    if (!element.checkVisibility() || element.matches(onPurpose)) continue;
    const style = getComputedStyle(element);
    const box = element.getBoundingClientRect();
    if (box.width === 0 || style.clipPath !== "none" || element.closest("thead")) continue;
    if (box.left < -0.5 || box.right > document.documentElement.clientWidth + 0.5) {
      wrong.push(`beside the page: ${element.outerHTML.slice(0, 120)}`);
    }
    const texts = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (texts && style.display !== "inline" && element.scrollWidth > element.clientWidth + 1) {
      wrong.push(`cut off: ${element.outerHTML.slice(0, 120)}`);
    }
  }
  return wrong;
}"""

_OVERLAPPING = """() => {
  // Boxes that lie beside or below each other, whichever way the page is laid out.
  const groups = [".bar-inner > *", ".bar-end > *", "main > *", ".figure", ".panel", "h1, .muted",
    ".figure h3, .figure .value, .figure .under", ".legend button", ".choice label", "tbody tr",
    ".panel > header > *", ".chart-foot > *"];
  const wrong = [];
  for (const group of groups) {
    const boxes = [...document.querySelectorAll(group)]
      .filter((e) => e.checkVisibility() && !e.closest(".scroll") && !e.matches(".unseen"))
      .map((e) => [e, e.getBoundingClientRect()]);
    for (const [index, [a, one]] of boxes.entries()) {
      for (const [b, two] of boxes.slice(index + 1)) {
        if (a.contains(b) || b.contains(a)) continue;
        const wide = Math.min(one.right, two.right) - Math.max(one.left, two.left);
        const high = Math.min(one.bottom, two.bottom) - Math.max(one.top, two.top);
        if (wide > 1 && high > 1) {
          wrong.push(`${group}: ${a.outerHTML.slice(0, 80)} and ${b.outerHTML.slice(0, 80)}`);
        }
      }
    }
  }
  return wrong;
}"""

#: Times of frames in ms, over so many seconds.
FRAMES = """(seconds) => new Promise((done) => {
  const frames = [];
  let before = performance.now();
  const until = before + seconds * 1000;
  requestAnimationFrame(function frame() {
    const now = performance.now();
    frames.push(now - before);
    before = now;
    if (now < until) requestAnimationFrame(frame);
    else done(frames.sort((a, b) => a - b));
  });
})"""


def clipped(watched: Watched) -> list[str]:
    """Elements that are cut off or lie outside."""
    found: list[str] = watched.page.evaluate(_CLIPPED)
    return found


def overlapping(watched: Watched) -> list[str]:
    """Pairs of elements that lie on each other."""
    found: list[str] = watched.page.evaluate(_OVERLAPPING)
    return found


def inaccessible(watched: Watched) -> list[str]:
    """What axe-core finds, of whatever impact."""
    if not AXE.exists():
        missing("axe-core is not there: make browser")
    # Not as an element: the page's policy forbids scripts that are not its own.
    watched.page.evaluate(AXE.read_text())
    result: dict[str, Any] = watched.page.evaluate("axe.run()")
    assert result["passes"], "axe did look"
    return [
        f"{found['impact']}: {found['id']} at {[node['target'] for node in found['nodes']]}"
        for found in result["violations"]
    ]
