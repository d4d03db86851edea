// What the last days brought, drawn small: cold starts by phase, days by time asleep. Each drawing
// says in words what it shows; the details have the numbers as a table too.

import { drawn, make } from "./dom.js";
import { PHASES, clock, duration, minute, percent, plural, wholeDuration } from "./words.js";

const SHOWN_MAX = 40;
const MINI_MAX = 14;

const secondsOf = (start, phase) => start.phases?.[phase] ?? 0;
const total = (start) => PHASES.reduce((sum, phase) => sum + secondsOf(start, phase), 0) || (start.seconds ?? 0);
const isReady = (start) => start.outcome === "ready";

export function asleepShare({ asleep_seconds: asleep, awake_seconds: awake }) {
  return asleep + awake > 0 ? asleep / (asleep + awake) : null;
}

// "14 cold starts, 1 did not become ready; usually 3.2 s, at most 8.0 s".
export function startsInWords(starts) {
  if (starts.length === 0) return "no cold start";
  const ready = starts.filter(isReady).map(total).sort((a, b) => a - b);
  const failed = starts.length - ready.length;
  const said = [plural(starts.length, "cold start")];
  if (failed) said.push(`${failed} did not become ready`);
  const times = ready.length ? `; usually ${duration(median(ready))}, at most ${duration(ready.at(-1))}` : "";
  return said.join(", ") + times;
}

export function median(sorted) {
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

export const usualStart = (starts) => {
  const ready = starts.filter(isReady).map(total).sort((a, b) => a - b);
  return ready.length ? median(ready) : null;
};

// One bar for each start, oldest left, its phases from the bottom up.
function bars(starts, { left, bottom, width, height, gap, thickest, most }) {
  const step = Math.min(width / starts.length, thickest + gap);
  const thick = Math.max(1, step - gap);
  return starts.map((start, index) => {
    const x = left + index * step;
    const group = drawn("g", { class: isReady(start) ? "start" : "start start-failed" });
    group.append(drawn("title", {}, startTitle(start)));
    let y = bottom;
    for (const phase of PHASES) {
      const tall = (secondsOf(start, phase) / most) * height;
      if (tall <= 0) continue;
      y -= tall;
      group.append(drawn("rect", { class: `phase-${phase}`, x, y, width: thick, height: tall }));
    }
    if (!isReady(start)) group.append(cross(x + thick / 2, Math.max(y - 5, 4), Math.min(3, thick)));
    return group;
  });
}

const cross = (x, y, half) =>
  drawn("path", {
    class: "cross",
    d: `M${x - half} ${y - half}l${2 * half} ${2 * half}M${x + half} ${y - half}l${-2 * half} ${2 * half}`,
  });

function startTitle(start) {
  const parts = PHASES.filter((phase) => secondsOf(start, phase) > 0).map(
    (phase) => `${phase} ${duration(secondsOf(start, phase))}`,
  );
  const outcome = isReady(start) ? `ready after ${duration(total(start))}` : `${start.outcome} after ${duration(total(start))}`;
  return [`${clock(start.at)}: ${outcome}`, ...parts].join("\n");
}

export function miniStarts(starts) {
  const shown = starts.slice(-MINI_MAX);
  const most = Math.max(...shown.map(total), 0.001);
  return drawn(
    "svg",
    { class: "mini", viewBox: "0 0 84 24", role: "img", "aria-label": startsInWords(starts) },
    ...bars(shown, { left: 0, bottom: 24, width: 84, height: 18, gap: 1.5, thickest: 5, most }),
  );
}

export function startsChart(starts) {
  const shown = starts.slice(-SHOWN_MAX);
  const most = Math.max(...shown.map(total), 0.001);
  const [top, bottom, left, right] = [14, 104, 44, 400];
  const lines = [1, 0.5, 0].flatMap((share) => {
    const y = bottom - share * (bottom - top);
    const label = share === 0 ? "0" : duration(most * share);
    return [
      drawn("line", { class: "grid", x1: left, x2: right, y1: y, y2: y }),
      drawn("text", { class: "axis", x: left - 6, y: y + 3.5, "text-anchor": "end" }, label),
    ];
  });
  const dates = [
    drawn("text", { class: "axis", x: left, y: 119 }, minute(shown[0].at)),
    drawn("text", { class: "axis", x: right, y: 119, "text-anchor": "end" }, shown.length > 1 ? minute(shown.at(-1).at) : ""),
  ];
  const drawing = drawn(
    "svg",
    { class: "chart", viewBox: "0 0 400 122", role: "img", "aria-label": startsInWords(starts) },
    ...lines,
    ...bars(shown, { left: left + 2, bottom, width: right - left - 2, height: bottom - top, gap: 3, thickest: 16, most }),
    ...dates,
  );
  return make("figure", { class: "starts" }, drawing, legend(shown), asTable(shown));
}

function legend(starts) {
  const met = PHASES.filter((phase) => starts.some((start) => secondsOf(start, phase) > 0));
  const items = met.map((phase) => make("li", {}, make("span", { class: `swatch phase-${phase}` }), phase));
  if (!starts.every(isReady)) items.push(make("li", {}, make("span", { class: "swatch swatch-cross" }, "×"), "did not become ready"));
  return make("ul", { class: "legend" }, ...items);
}

function asTable(starts) {
  const rows = [...starts].reverse().map((start) =>
    make(
      "tr",
      {},
      make("td", {}, clock(start.at)),
      make("td", {}, start.outcome),
      make("td", { class: "number" }, duration(total(start))),
      ...PHASES.map((phase) =>
        make("td", { class: "number" }, secondsOf(start, phase) > 0 ? duration(secondsOf(start, phase)) : "–"),
      ),
    ),
  );
  const head = make("tr", {}, ...["begun", "outcome", "total", ...PHASES].map((name) => make("th", { scope: "col" }, name)));
  return make(
    "details",
    { class: "numbers" },
    make("summary", {}, "In numbers"),
    make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Cold starts in numbers" },
      make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows))),
  );
}

// One column for each day: how much of it was slept through.
export function daysChart(days) {
  const step = 400 / Math.max(days.length, 7);
  const columns = days.flatMap((day, index) => {
    const share = asleepShare(day);
    const x = index * step + 4;
    const tall = 44 * (share ?? 0);
    return [
      drawn("rect", { class: "day-all", x, y: 14, width: step - 8, height: 44, rx: 3 }),
      drawn("rect", { class: "day-asleep", x, y: 58 - tall, width: step - 8, height: tall, rx: 3 }),
      drawn("text", { class: "axis", x: x + step / 2 - 4, y: 9, "text-anchor": "middle" }, share === null ? "–" : percent(share)),
      drawn("text", { class: "axis", x: x + step / 2 - 4, y: 71, "text-anchor": "middle" }, weekday(day.date)),
    ];
  });
  const words = days.map((day) => `${weekday(day.date)} ${asleepShare(day) === null ? "unknown" : percent(asleepShare(day))}`);
  return drawn(
    "svg",
    { class: "chart days", viewBox: "0 0 400 75", role: "img", "aria-label": `Asleep by day: ${words.join(", ")}` },
    ...columns,
  );
}

// "2026-01-05" is a day of the daemon, not midnight in the zone of the browser.
const weekday = (date) =>
  new Date(`${date}T12:00:00Z`).toLocaleDateString("en", { weekday: "short", timeZone: "UTC" });

export function asleepInWords(service) {
  const share = asleepShare(service);
  if (share === null) return "not known yet";
  return `${percent(share)} of ${wholeDuration(service.asleep_seconds + service.awake_seconds)}`;
}
