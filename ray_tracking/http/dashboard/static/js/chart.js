// A chart of lines over time: uPlot draws, and a table behind it says the same.

import uPlot from "../vendor/uPlot.esm.js";
import { h, setText } from "./dom.js";
import { inNextFrame } from "./frame.js";
import { colour, themeChanges } from "./theme.js";

/**
 * A chart with its legend and its table.
 *
 * series: {label, tint, off?}. options: label, height, axis(value) for the numbers,
 * value(value) where it is written out, time(ms, spanMs) for the axis below, row(ms) for the table, summary(values) for what
 * the legend says of a series while nothing is pointed at.
 */
export function chart(series, options) {
  const on = series.map((one) => !one.off);
  const legend = series.map(legendButton);
  const drawing = h("div", { class: `drawing ${options.height < 200 ? "low" : ""}`, role: "img", "aria-label": options.label });
  const nothing = h("p", { class: "nothing" });
  const behind = table(series, options);
  const span = h("p", {});
  const foot = h("div", { class: "chart-foot" }, span, behind.element);
  const element = h("figure", {}, h("div", { class: "legend", role: "group", "aria-label": "Lines" }, ...legend.map((l) => l.button)), drawing, foot);
  let plot = null;
  let data = [[], ...series.map(() => [])];

  function legendButton(one, index) {
    const value = h("b", {}, "");
    const button = h("button", { type: "button", "aria-pressed": String(on[index]), onclick: toggle }, h("i", { "aria-hidden": "true" }), one.label, value);
    button.style.setProperty("--tint", `var(--${one.tint})`);
    function toggle() {
      on[index] = !on[index];
      button.setAttribute("aria-pressed", String(on[index]));
      plot?.setSeries(index + 1, { show: on[index] });
    }
    return { button, value };
  }

  function tell(at) {
    for (const [index, { value }] of legend.entries()) {
      const values = data[index + 1];
      const told = at === null || at === undefined ? options.summary(values) : values[at];
      setText(value, (options.value ?? options.axis)(told));
    }
  }

  function build() {
    plot?.destroy();
    plot = null;
    const width = Math.floor(drawing.clientWidth);
    if (width === 0) return;
    const axis = { stroke: colour("muted"), font: `12px ${colour("sans")}`, grid: { stroke: colour("line"), width: 1 }, ticks: { show: false } };
    plot = new uPlot(
      {
        width,
        height: options.height,
        legend: { show: false },
        cursor: { drag: { x: false, y: false }, points: { size: 7 } },
        padding: [10, 26, 0, 0],
        scales: { x: { time: true }, y: { range: (u, low, high) => [0, niceTop(high)] } },
        axes: [
          { ...axis, size: 30, space: 80, values: (u, at) => at.map((s) => options.time(s * 1000, (at.at(-1) - at[0]) * 1000)) },
          { ...axis, size: (u, values) => 18 + 7 * Math.max(2, ...(values ?? []).map((v) => (v ?? "").length)), space: 42, values: (u, at) => at.map((n) => (Number.isInteger(n) || options.fractions ? options.axis(n) : "")) },
        ],
        series: [
          {},
          ...series.map(({ label, tint }, index) => ({
            label,
            show: on[index],
            stroke: colour(tint),
            width: 2,
            fill: `${colour(tint)}14`,
            points: { show: () => data[0].length === 1 },
          })),
        ],
        hooks: { setCursor: [(u) => tell(u.cursor.idx)] },
      },
      data,
      drawing,
    );
  }

  const draw = () => {
    if (plot) plot.setData(data);
    else build();
    tell(plot?.cursor.idx ?? null);
    behind.show(data);
  };
  const rebuild = () => inNextFrame(build);
  const size = new ResizeObserver(() => {
    const width = Math.floor(drawing.clientWidth);
    if (plot && width > 0 && width !== plot.width) plot.setSize({ width, height: options.height });
    else if (!plot) rebuild();
  });
  size.observe(drawing);
  themeChanges.addEventListener("change", rebuild);

  return {
    element,
    /** times in seconds, and for each series as many values; words below the chart. */
    show(times, values, words, empty = "") {
      data = [times, ...values];
      setText(span, words);
      setText(nothing, empty);
      if (empty) drawing.append(nothing);
      else nothing.remove();
      inNextFrame(draw);
    },
    close() {
      size.disconnect();
      themeChanges.removeEventListener("change", rebuild);
      plot?.destroy();
      plot = null; // a frame that was asked for may still come
    },
  };
}

/** Some room above the highest value; never a scale from nothing to nothing. */
function niceTop(high) {
  return high > 0 ? Math.max(high * 1.08, 4) : 4;
}

function table(series, options) {
  const body = h("tbody");
  const head = h("tr", {}, h("th", { scope: "col" }, "Time"), ...series.map((one) => h("th", { scope: "col", class: "number" }, one.label)));
  const element = h(
    "details",
    { class: "behind" },
    h("summary", {}, "As a table"),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${options.label}, as a table` }, h("table", {}, h("caption", { class: "unseen" }, options.label), h("thead", {}, head), body)),
  );
  let latest = null;
  function fill() {
    if (!element.open || !latest) return;
    const [times, ...values] = latest;
    const rows = times.map((s, at) =>
      h("tr", {}, h("th", { scope: "row" }, options.row(s * 1000)), ...values.map((one) => h("td", { class: "number" }, options.axis(one[at])))),
    );
    body.replaceChildren(...rows.reverse());
  }
  element.addEventListener("toggle", fill);
  return {
    element,
    show(data) {
      latest = data;
      fill();
    },
  };
}
