// Everything about one service, beside the table or, where there is no room, over it.

import { asleepInWords, daysChart, startsChart, startsInWords } from "./charts.js";
import { byId, icon, make, setAttribute, setChildren, setHidden, setText } from "./dom.js";
import { StateMark } from "./table.js";
import { entry } from "./timeline.js";
import * as words from "./words.js";

const ENTRIES_MAX = 30;
const LEASES_SHOWN_MAX = 50;
// A phase that was over sooner is not worth a word.
const SHOWN_SECONDS = 0.05;
// Verb, word, and when it makes sense; what it then does is the API's to decide.
const BUTTONS = [
  ["start", "Start", (service) => !isUp(service) || service.closed_by === "held"],
  ["stop", "Stop", (service) => service.state !== "stopped" && service.phase !== "stopping"],
  ["restart", "Restart", (service) => isUp(service)],
  ["drain", "Drain", (service) => isUp(service)],
  ["hold", "Hold", (service) => service.closed_by !== "held"],
  ["keep", "Keep…", () => true],
  ["prepare", "Prepare", (service) => !service.preparation?.running],
  ["logs", "Logs", () => true],
  ["force", "Force…", (service) => service.state !== "stopped" && service.state !== "failed"],
];
const MEANINGS = {
  start: "Start it now; ends a hold and a back-off",
  stop: "Stop it; refused while requests use it",
  restart: "Stop it once its requests have ended, then start it",
  drain: "Stop it once its requests have ended",
  hold: "Stop it, and keep it stopped until an operator starts it",
  keep: "Start it, and do not stop it for idleness for so long",
  prepare: "Pull, build and create what its next start needs",
  logs: "Its output, live",
  force: "Stop it now; cuts the requests that use it",
};
const isUp = (service) => service.state === "ready" || service.state === "starting";

export class Details {
  host = null;
  #shown = {}; // what the larger parts were last made from

  constructor(fleet, { onCommand, onClose }) {
    this.fleet = fleet;
    this.element = byId("details");
    this.state = new StateMark();
    byId("details-state").append(this.state.element);
    byId("details-close").addEventListener("click", onClose);
    this.buttons = BUTTONS.map(([verb, label, isSensible]) => {
      const act = () => onCommand(verb, this.host);
      const button = make(
        "button",
        { type: "button", "data-verb": verb, title: MEANINGS[verb], onclick: act },
        icon(verb),
        label,
      );
      return { verb, isSensible, button };
    });
    byId("details-buttons").append(...this.buttons.map(({ button }) => button));
    this.facts = new Facts(byId("details-facts"));
  }

  open(host) {
    if (host === this.host) return;
    this.host = host;
    this.#shown = {};
    setHidden(this.element, false);
    this.element.scrollTop = 0;
    this.show();
    this.showTransitions();
    byId("details-name").focus({ preventScroll: true });
  }

  close() {
    this.host = null;
    setHidden(this.element, true);
  }

  show(busy = new Set()) {
    if (this.host === null) return;
    const service = this.fleet.get(this.host);
    setHidden(byId("details-body"), service === null);
    setHidden(byId("details-unknown"), service !== null || !this.fleet.isLoaded);
    setText(byId("details-name"), service?.name ?? this.host);
    const hosts = [this.host, ...(service?.aliases ?? [])].filter((host) => host !== service?.name);
    setText(byId("details-host"), hosts.join(", "));
    setHidden(byId("details-state"), service === null);
    if (service === null) return;
    this.state.show(service);
    for (const { verb, isSensible, button } of this.buttons) {
      setAttribute(button, "disabled", busy.has(verb) || !isSensible(service));
      setAttribute(button, "aria-busy", busy.has(verb) ? "true" : null);
    }
    this.#showFailure(service);
    this.#showHistory(this.fleet.history(this.host));
    this.tick();
  }

  tick() {
    const service = this.host === null ? null : this.fleet.get(this.host);
    if (service === null) return;
    const age = this.fleet.age(this.host);
    this.facts.show(this.#facts(service, age));
    showRequests(byId("details-leases"), service.leases, age, "No request uses it.");
    showRequests(byId("details-waiting"), service.waiting, age, "No request waits for it.");
    setText(byId("details-leases-count"), String(service.leases.length));
    setText(byId("details-waiting-count"), String(service.waiting.length));
    setText(byId("failure-retry"), this.#retry(service, age));
  }

  showTransitions() {
    if (this.host === null) return;
    const own = this.fleet.transitions.filter((each) => each.service === this.host).slice(0, ENTRIES_MAX);
    byId("details-timeline").replaceChildren(...own.map((each) => entry(each, { isNamed: false })));
    setHidden(byId("details-timeline-none"), own.length > 0);
  }

  #facts(service, age) {
    const usage = this.fleet.usage(this.host);
    const since = words.wholeDuration(service.since_seconds + age);
    return [
      ["State", `${words.standing(service)} for ${since}${words.phase(service) && `, ${words.phase(service)}`}`],
      ["Closed", service.closed_by && words.closed(service.closed_by)],
      ["Progress", service.progress],
      ["Prepared", preparation(service.preparation)],
      ["Start so far", service.state === "starting" ? phases(service, age) : null],
      ["Idle", idleness(service, age)],
      ["Kept until", service.kept_until && words.clock(service.kept_until)],
      ["Memory now", usage && words.bytes(usage.memoryBytes)],
      ["CPU now", usage && usage.cores !== null ? `${words.percent(usage.cores)} of a core` : null],
      ["Device", service.device && `${service.device.kind.toUpperCase()}: ${service.device.reason}`],
      ["Usual start", service.usual_start_seconds === null ? null : words.duration(service.usual_start_seconds)],
      ["Last start", service.state === "ready" && service.phases.length ? phases(service, 0) : null],
      ["Endpoint", service.endpoint && `${service.endpoint.address}:${service.endpoint.port}`],
      ["Runtime", service.runtime],
      ["Attempt", service.attempt ? String(service.attempt) : null],
    ];
  }

  #retry(service, age) {
    if (service.retry_in_seconds === null) return "";
    const seconds = Math.max(0, service.retry_in_seconds - age);
    return `Next try in ${words.wholeDuration(seconds)} at the earliest; Start tries at once.`;
  }

  #showFailure(service) {
    const { failure } = service;
    setHidden(byId("failure"), failure === null);
    if (failure === null) return;
    const times = service.failures > 1 ? `, ${service.failures} times in a row` : "";
    setText(byId("failure-code"), `${failure.code}${times}`);
    setText(byId("failure-message"), failure.message);
    setText(byId("failure-hint"), failure.hint ? `Next: ${failure.hint}` : "");
    const lines = service.failure_log?.length ? service.failure_log.map(words.plainLine).join("\n") : "";
    for (const [id, text] of [["failure-detail", failure.detail ?? ""], ["failure-log", lines]]) {
      setText(byId(id).querySelector("pre"), text);
      setHidden(byId(id), text === "");
    }
  }

  #showHistory(history) {
    if (history === this.#shown.history) return;
    this.#shown.history = history;
    const starts = history?.starts ?? [];
    if (starts !== this.#shown.starts) this.#showStarts(starts);
    this.#shown.starts = starts;
    const days = history?.days ?? [];
    byId("details-days").replaceChildren(...(days.length ? [daysChart(days)] : []));
    setText(byId("details-asleep"), history === null ? "Not known yet." : `Asleep ${asleepInWords(history)}.`);
    setText(byId("details-saved"), savedInWords(history));
  }

  #showStarts(starts) {
    setText(byId("details-starts-words"), starts.length ? `${startsInWords(starts)}.` : "No cold start in the last 7 days.");
    byId("details-starts").replaceChildren(...(starts.length ? [startsChart(starts)] : []));
  }
}

function savedInWords(history) {
  if (!history || history.memory_saved_gb_hours === null || history.memory_saved_gb_hours === undefined) {
    return history ? "What that saved is known once it has run for a while." : "";
  }
  const usual = history.memory_bytes_usual === null ? "" : `: it usually takes ${words.bytes(history.memory_bytes_usual)}`;
  return `That saved ${words.gigabyteHours(history.memory_saved_gb_hours)}${usual}.`;
}

function idleness(service, age) {
  if (service.state !== "ready") return null;
  if (service.leases.length) return "in use";
  if (service.idle_due_seconds === null) return "never due";
  return `stops in ${words.wholeDuration(Math.max(0, service.idle_due_seconds - age))}`;
}

function preparation(answer) {
  if (!answer) return null;
  if (answer.running) return "being prepared";
  return answer.failure ? `failed: ${answer.failure.message}` : "done";
}

function phases(service, age) {
  const last = service.phases.length - 1;
  return service.phases
    .filter(({ seconds }, index) => index === last || seconds === null || seconds >= SHOWN_SECONDS)
    .map(({ phase, seconds }) => {
      if (seconds === null) return phase;
      return `${phase} ${words.duration(phase === service.phases[last].phase ? seconds + age : seconds)}`;
    })
    .join(", ");
}

// Names and values; those without a value are left out.
class Facts {
  #rows = new Map();

  constructor(list) {
    this.list = list;
  }

  show(facts) {
    const wanted = [];
    for (const [name, value] of facts) {
      if (value === null || value === "" || value === undefined) continue;
      if (!this.#rows.has(name)) this.#rows.set(name, make("div", {}, make("dt", {}, name), make("dd")));
      const row = this.#rows.get(name);
      setText(row.lastChild, value);
      wanted.push(row);
    }
    setChildren(this.list, wanted);
  }
}

function showRequests(list, requests, age, none) {
  const had = new Map([...list.children].map((item) => [item.dataset.id, item]));
  const wanted = requests.slice(0, LEASES_SHOWN_MAX).map((request) => {
    const id = String(request.id);
    const item = had.get(id) ?? make("li", { "data-id": id }, make("code", {}, request.about), make("span", { class: "age" }));
    setText(item.lastChild, words.wholeDuration(request.age_seconds + age));
    return item;
  });
  const hidden = requests.length - wanted.length;
  if (hidden > 0) wanted.push(make("li", {}, `and ${hidden} more`));
  if (requests.length === 0) wanted.push(had.get("none") ?? make("li", { "data-id": "none", class: "none" }, none));
  setChildren(list, wanted);
}
