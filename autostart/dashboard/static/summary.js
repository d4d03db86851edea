// The fleet in one line: how many stand where, what they take, what sleeping saved.

import { byId, setText } from "./dom.js";
import { asleepShare } from "./charts.js";
import { STATES, bytes, gigabyteHours, percent } from "./words.js";

export function showSummary(fleet) {
  const counts = Object.fromEntries(STATES.map((state) => [state, 0]));
  let memory = 0;
  let cores = null; // known from the second sample on
  let saved = null;
  const slept = { asleep_seconds: 0, awake_seconds: 0 };
  for (const service of fleet.all()) {
    counts[service.state] += 1;
    const usage = fleet.usage(service.host);
    memory += usage?.memoryBytes ?? 0;
    if (typeof usage?.cores === "number") cores = (cores ?? 0) + usage.cores;
    const history = fleet.history(service.host);
    if (history === null) continue;
    slept.asleep_seconds += history.asleep_seconds;
    slept.awake_seconds += history.awake_seconds;
    if (typeof history.memory_saved_gb_hours === "number") saved = (saved ?? 0) + history.memory_saved_gb_hours;
  }
  for (const state of STATES) setText(byId(`count-${state}`), String(counts[state]));
  setText(byId("sum-memory"), memory ? bytes(memory) : "–");
  const taken = cores === null ? "" : `${percent(cores)} of a core`;
  const runs = counts.ready + counts.starting + counts.stopping > 0;
  setText(byId("sum-cpu"), runs ? taken : "nothing runs");
  setText(byId("sum-saved"), saved === null ? "–" : gigabyteHours(saved));
  const share = asleepShare(slept);
  setText(byId("sum-asleep"), share === null ? "" : `asleep ${percent(share)}`);
  const attention = counts.failed ? `(${counts.failed} failed) ` : "";
  document.title = `${attention}autostart`;
}
