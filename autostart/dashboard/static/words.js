// Numbers, dates and causes as people read them. Pure: values in, text out.

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

export const STATES = ["ready", "starting", "stopping", "stopped", "failed"];
export const PHASES = ["queued", "preparing", "starting", "loading"];

// 120 ms, 3.2 s, 42 s, 2m 05s, 3h 10m, 4d 2h.
export function duration(seconds) {
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  return wholeDuration(seconds);
}

// The same in whole seconds, for what ticks: 0 s, 42 s, 2m 05s.
export function wholeDuration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < MINUTE) return `${whole} s`;
  if (whole < HOUR) return pair(whole, MINUTE, "m", 1, "s");
  if (whole < DAY) return pair(whole, HOUR, "h", MINUTE, "m");
  const hours = Math.floor((whole % DAY) / HOUR);
  return hours ? `${Math.floor(whole / DAY)}d ${hours}h` : `${Math.floor(whole / DAY)}d`;
}

function pair(seconds, large, largeName, small, smallName) {
  const rest = Math.floor((seconds % large) / small);
  return `${Math.floor(seconds / large)}${largeName} ${String(rest).padStart(2, "0")}${smallName}`;
}

export function bytes(count) {
  if (count < 1e6) return `${Math.round(count / 1e3)} kB`;
  if (count < 1e9) return `${Math.round(count / 1e6)} MB`;
  return `${(count / 1e9).toFixed(count < 1e10 ? 1 : 0)} GB`;
}

export function gigabyteHours(count) {
  if (count === 0) return "0 GB·h";
  if (count < 0.01) return "< 0.01 GB·h";
  const digits = count < 1 ? 2 : count < 100 ? 1 : 0;
  return `${count.toLocaleString("en", { maximumFractionDigits: digits })} GB·h`;
}

// A share of 1. What is not all or nothing is never shown as all or nothing.
export function percent(share) {
  if (share > 0 && share < 0.01) return "< 1 %";
  if (share < 1 && share > 0.99) return "> 99 %";
  return `${Math.round(share * 100)} %`;
}

export function plural(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

// The time of day, with the date unless it is today's.
export function clock(iso, today = new Date()) {
  const date = new Date(iso);
  const time = date.toLocaleTimeString([], { hour12: false });
  if (date.toDateString() === today.toDateString()) return time;
  return `${date.toLocaleDateString([], { day: "numeric", month: "short" })}, ${time}`;
}

// The day and the minute, for an axis.
export function minute(iso) {
  const options = { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hour12: false };
  return new Date(iso).toLocaleString([], options);
}

export function fullDate(iso) {
  return new Date(iso).toLocaleString([], { dateStyle: "medium", timeStyle: "long" });
}

// The causes of transitions, which the log gives as names of events.
const CAUSES = new Map(
  Object.entries({
    adopted: "it ran already and was taken over",
    "busy-answered": "it says whether it is busy",
    "engine-unreachable": "the engine does not answer",
    evicted: "made room for another of its exclusive name",
    "hold-due": "nobody waits for it any more",
    idle: "idle for long enough",
    kept: "an operator keeps it",
    "lease-released": "its last request ended",
    lost: "it refused a connection",
    "port-taken": "its port is taken",
    "probe-succeeded": "the probe succeeded",
    progressed: "",
    reconfigured: "the map was read again",
    removed: "no longer in the map",
    "restart-requested": "an operator restarts it",
    "retry-due": "the back-off is over",
    "shutdown-began": "autostart is shutting down",
    "start-due": "it is wanted",
    "start-failed": "the start failed",
    "start-requested": "an operator starts it",
    "start-timeout": "not ready in time",
    started: "its run is there",
    "stop-failed": "the stop failed",
    "stop-requested": "an operator stops it",
    stopped: "its run is gone",
    yielded: "another of its exclusive name has its turn",
  }),
);

export function because(cause) {
  if (CAUSES.has(cause)) return CAUSES.get(cause);
  if (cause.startsWith("exited: ")) return `its run ended: ${cause.slice("exited: ".length)}`;
  return cause; // "request POST /v1/…", and what a later version may say
}

const CLOSED = new Map([
  ["held", "held: stays stopped until an operator starts it"],
  ["unknown-host", "no longer in the map: stops once its requests have ended"],
  ["shutting-down", "autostart is shutting down"],
]);

export function closed(code) {
  return CLOSED.get(code) ?? code;
}

// The word of the mark: the state, or that it is held there.
export function standing(service) {
  return service.closed_by === "held" && service.state === "stopped" ? "held" : service.state;
}

// How far a start or a stop has come, where that says more than the state; else "".
export function phase(service) {
  return service.phase === null || service.phase === service.state ? "" : service.phase;
}

// What a duration for `keep` may be; the daemon has the last word.
export function isDuration(written) {
  return /^(\d+(\.\d+)?(ms|s|m|h|d))+$/.test(written.trim()) && /[1-9]/.test(written);
}

// The colours and movements that programs write for terminals.
// eslint-disable-next-line no-control-regex
const ESCAPES = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[@-_])/g;
const LINE_MAX = 4000;

export function plainLine(line) {
  const written = line.replace(ESCAPES, "").replace(/\r$/, "");
  const text = written.slice(written.lastIndexOf("\r") + 1); // a progress bar: how it ended
  return text.length > LINE_MAX ? `${text.slice(0, LINE_MAX)} … (${text.length} characters)` : text;
}
