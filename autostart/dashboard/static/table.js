// The table of services. A row is made once and patched where something changed: with a hundred
// services nothing else is fast enough to be calm.

import { asleepInWords, asleepShare, miniStarts, startsInWords, usualStart } from "./charts.js";
import { byId, icon, make, setAttribute, setChildren, setHidden, setText } from "./dom.js";
import * as words from "./words.js";

const NOTHING = "–";

// How the table may be sorted; null sorts last, whichever way.
const SORTS = new Map([
  ["map", { label: "as in the map", key: () => 0 }],
  ["name", { label: "name", key: (row) => row.service.name.toLowerCase() }],
  ["state", { label: "state", key: (row) => words.STATES.indexOf(row.service.state) }],
  ["idle", { label: "idle in", key: (row) => row.idleIn() }],
  ["use", { label: "in use", key: (row) => -row.service.leases.length - row.service.waiting.length }],
  ["memory", { label: "memory", key: (row) => negative(row.usage?.memoryBytes) }],
  ["starts", { label: "cold starts", key: (row) => negative(row.history?.starts.length) }],
  ["asleep", { label: "asleep", key: (row) => negative(row.history && asleepShare(row.history)) }],
]);
const negative = (number) => (number === null || number === undefined ? null : -number);

class Row {
  constructor(host, { onCommand, onOpen }) {
    this.host = host;
    this.name = make("a", { class: "name", href: `#${encodeURIComponent(host)}` });
    this.hostLine = make("span", { class: "below host" }, host);
    this.state = new StateMark();
    this.since = make("span", { class: "below ticking" });
    this.idle = make("span", { class: "ticking" });
    this.idleBelow = make("span", { class: "below" });
    this.leases = make("span");
    this.waiting = make("span", { class: "below" });
    this.memory = make("span");
    this.cpu = make("span", { class: "below" });
    this.starts = make("span", { class: "plot" });
    this.startsBelow = make("span", { class: "below" });
    this.asleep = make("span");
    this.asleepBar = make("span", { class: "bar", "aria-hidden": "true" }, make("span"));
    this.saved = make("span", { class: "below" });
    this.act = make("button", { type: "button", class: "act", onclick: () => onCommand(this.verb, host) });
    this.element = make(
      "tr",
      { role: "row", "data-host": host },
      cell("service", "rowheader", this.name, this.hostLine),
      cell("state", "cell", this.state.element, this.since),
      cell("idle", "cell", this.idle, this.idleBelow),
      cell("use", "cell", this.leases, this.waiting),
      cell("memory", "cell", this.memory, this.cpu),
      cell("starts", "cell", this.starts, this.startsBelow),
      cell("asleep", "cell", this.asleep, this.asleepBar, this.saved),
      cell("acts", "cell", this.act),
    );
    // The whole row leads to the details; the link in it does for a keyboard.
    this.element.addEventListener("click", (event) => {
      if (!event.target.closest("a, button") && getSelection().isCollapsed) onOpen(host);
    });
  }

  show(fleet, isBusy) {
    this.service = fleet.get(this.host);
    this.usage = fleet.usage(this.host);
    this.age = () => fleet.age(this.host);
    const { service } = this;
    setText(this.name, service.name);
    setHidden(this.hostLine, service.name === service.host);
    this.state.show(service);
    const [leases, waiting] = [service.leases.length, service.waiting.length];
    setText(this.leases, leases ? words.plural(leases, "lease") : waiting ? "" : NOTHING);
    setText(this.waiting, waiting ? `${waiting} waiting` : "");
    setAttribute(this.leases.parentNode, "data-none", !leases && !waiting);
    setText(this.memory, this.usage ? words.bytes(this.usage.memoryBytes) : NOTHING);
    setAttribute(this.memory.parentNode, "data-none", !this.usage);
    const cores = this.usage?.cores ?? null;
    setText(this.cpu, cores === null ? "" : `${words.percent(cores)} CPU`);
    this.#showHistory(fleet.history(this.host));
    this.#showButton(isBusy);
    this.tick();
  }

  // What time alone changes.
  tick() {
    const { service } = this;
    const since = words.wholeDuration(service.since_seconds + this.age());
    const phase = words.phase(service);
    setText(this.since, phase ? `${phase} · ${since}` : `for ${since}`);
    const idle = this.#idleWords();
    const note = this.#idleNote();
    setText(this.idle, idle || (note ? "" : NOTHING));
    setText(this.idleBelow, note);
    setAttribute(this.idle.parentNode, "data-none", !idle && !note);
  }

  #idleWords() {
    const idleIn = this.idleIn();
    if (idleIn !== null) return `in ${words.wholeDuration(idleIn)}`;
    if (this.service.state !== "ready") return "";
    return this.service.leases.length ? "in use" : "never";
  }

  idleIn() {
    const due = this.service.idle_due_seconds;
    return due === null ? null : Math.max(0, due - this.age());
  }

  #idleNote() {
    const { service } = this;
    if (service.kept_until !== null) return "kept";
    if (service.retry_in_seconds !== null) {
      return `next try in ${words.wholeDuration(Math.max(0, service.retry_in_seconds - this.age()))}`;
    }
    return service.failure !== null && service.state === "stopped" ? "last start failed" : "";
  }

  #showHistory(history) {
    if (history === this.history) return;
    this.history = history;
    if (history?.starts !== this.drawn) this.#showStarts(history?.starts ?? []);
    const share = history === null ? null : asleepShare(history);
    setText(this.asleep, share === null ? NOTHING : words.percent(share));
    setAttribute(this.asleep, "title", history === null ? null : asleepInWords(history));
    setHidden(this.asleepBar, share === null);
    setAttribute(this.asleep.parentNode, "data-none", share === null);
    this.asleepBar.firstChild.style.width = `${100 * (share ?? 0)}%`;
    const saved = history?.memory_saved_gb_hours ?? null;
    setText(this.saved, saved === null ? "" : words.gigabyteHours(saved));
  }

  #showStarts(starts) {
    this.drawn = starts;
    this.starts.replaceChildren(starts.length ? miniStarts(starts) : NOTHING);
    const usual = usualStart(starts);
    setText(this.startsBelow, starts.length ? `${starts.length}${usual === null ? "" : ` · ${words.duration(usual)}`}` : "");
    setAttribute(this.startsBelow, "title", starts.length ? startsInWords(starts) : null);
  }

  #showButton(isBusy) {
    const { service } = this;
    const runs = service.state === "ready" || service.state === "starting";
    const verb = runs ? "stop" : "start";
    if (verb !== this.verb) {
      this.verb = verb;
      this.act.replaceChildren(icon(verb), make("span", {}, runs ? "Stop" : "Start"));
    }
    setAttribute(this.act, "aria-label", `${runs ? "Stop" : "Start"} ${service.name}`);
    setAttribute(this.act, "disabled", isBusy || service.phase === "stopping");
    setAttribute(this.act, "aria-busy", isBusy ? "true" : null);
  }
}

const cell = (name, role, ...parts) => make("td", { class: `cell-${name}`, role }, ...parts);

// The sign of a state: a shape, a word, and a colour as a third.
export class StateMark {
  constructor() {
    this.word = make("span");
    this.element = make("span", { class: "mark" }, this.word);
  }

  show(service) {
    const said = words.standing(service);
    const kind = said === "held" ? "held" : service.state;
    if (kind !== this.kind) {
      this.kind = kind;
      this.element.className = `mark mark-${kind}`;
      this.element.replaceChildren(icon(kind), this.word);
    }
    setText(this.word, said);
  }
}

export class Table {
  #rows = new Map();
  #sort = "map";
  #isDescending = false;
  #state = null;
  #text = "";

  constructor(fleet, { onCommand, onOpen }) {
    this.fleet = fleet;
    this.ways = { onCommand, onOpen };
    this.body = byId("services-body");
    this.busy = new Map();
    this.#wire();
  }

  showRow(host) {
    const row = this.#rows.get(host);
    const isKnown = this.fleet.get(host) !== null;
    if (row === undefined || !isKnown) return this.showAll();
    row.show(this.fleet, (this.busy.get(host) ?? 0) > 0);
  }

  showAll() {
    for (const host of this.fleet.order) {
      if (!this.#rows.has(host)) this.#rows.set(host, new Row(host, this.ways));
      this.#rows.get(host).show(this.fleet, (this.busy.get(host) ?? 0) > 0);
    }
    for (const host of this.#rows.keys()) {
      if (this.fleet.get(host) === null) this.#rows.delete(host);
    }
    this.arrange();
  }

  // Puts the rows that are asked for in the order that is asked for.
  arrange() {
    const all = this.fleet.order.map((host) => this.#rows.get(host));
    const shown = all.filter((row) => this.#isAskedFor(row));
    const { key } = SORTS.get(this.#sort);
    const keys = new Map(shown.map((row) => [row, key(row)]));
    shown.sort((one, other) => compare(keys.get(one), keys.get(other), this.#isDescending));
    setChildren(this.body, shown.map((row) => row.element));
    setHidden(byId("services-none"), shown.length > 0);
    setText(byId("services-none"), all.length ? "No service matches." : "No service is declared.");
    const count = shown.length === all.length ? words.plural(all.length, "service") : `${shown.length} of ${all.length}`;
    setText(byId("services-count"), count);
  }

  tick() {
    for (const row of this.#rows.values()) if (row.element.isConnected) row.tick();
  }

  mark(host) {
    for (const row of this.#rows.values()) {
      setAttribute(row.element, "aria-current", row.host === host ? "true" : null);
    }
  }

  focus(host) {
    this.#rows.get(host)?.name.focus();
  }

  showState(state) {
    this.#state = this.#state === state ? null : state;
    for (const tile of document.querySelectorAll("[data-state]")) {
      setAttribute(tile, "aria-pressed", String(tile.dataset.state === this.#state));
    }
    this.arrange();
  }

  #isAskedFor({ service }) {
    if (this.#state !== null && service.state !== this.#state) return false;
    const written = [service.name, service.host, ...service.aliases, service.runtime, words.standing(service), words.phase(service)];
    return this.#text.split(/\s+/).every((word) => written.some((text) => text.toLowerCase().includes(word)));
  }

  #wire() {
    byId("services-filter").addEventListener("input", (event) => {
      this.#text = event.target.value.trim().toLowerCase();
      this.arrange();
    });
    for (const tile of document.querySelectorAll("[data-state]")) {
      tile.addEventListener("click", () => this.showState(tile.dataset.state));
    }
    const choice = byId("services-sort");
    choice.replaceChildren(...[...SORTS].map(([name, { label }]) => make("option", { value: name }, label)));
    choice.addEventListener("change", () => this.#sortBy(choice.value, false));
    for (const head of document.querySelectorAll("[data-sort]")) {
      head.querySelector("button").addEventListener("click", () => this.#cycle(head.dataset.sort));
    }
  }

  // A column: one way, the other way, and back to the map's order.
  #cycle(name) {
    if (this.#sort !== name) this.#sortBy(name, false);
    else if (!this.#isDescending) this.#sortBy(name, true);
    else this.#sortBy("map", false);
  }

  #sortBy(name, isDescending) {
    this.#sort = name;
    this.#isDescending = isDescending;
    byId("services-sort").value = name;
    for (const head of document.querySelectorAll("[data-sort]")) {
      const way = isDescending ? "descending" : "ascending";
      setAttribute(head, "aria-sort", head.dataset.sort === name ? way : null);
    }
    this.arrange();
  }
}

function compare(one, other, isDescending) {
  if (one === null || other === null) return (one === null) - (other === null);
  const order = one < other ? -1 : one > other ? 1 : 0;
  return isDescending ? -order : order;
}
