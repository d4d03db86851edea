// What happened, newest first.

import { byId, icon, make, setHidden, setText } from "./dom.js";
import { because, clock, duration, fullDate } from "./words.js";

const SHOWN_MAX = 300;

export function entry(transition, { isNamed = true } = {}) {
  const isState = transition.to === transition.state;
  const cause = because(transition.cause);
  const date = make("time", { datetime: transition.at, title: fullDate(transition.at) }, clock(transition.at));
  const move = make("span", { class: "move" }, transition.from, " → ", make("strong", {}, transition.to));
  const took = make("span", { class: "took" }, `after ${duration(transition.seconds)}`);
  const parts = isNamed
    ? [
        make("div", { class: "line" }, make("a", { href: `#${encodeURIComponent(transition.service)}` }, transition.service), date),
        make("div", { class: "line" }, move, took),
      ]
    : [make("div", { class: "line" }, move, took, date)];
  if (cause) parts.push(make("span", { class: "cause" }, cause));
  if (transition.failure) {
    parts.push(make("span", { class: "failure" }, `${transition.failure.code}: ${transition.failure.message}`));
  }
  const kind = isState ? transition.state : "phase";
  return make("li", { class: `entry entry-${kind}` }, icon(isState ? transition.state : "phase"), make("div", {}, ...parts));
}

export class Timeline {
  #host = "";

  constructor(fleet) {
    this.fleet = fleet;
    this.list = byId("timeline-list");
    this.choice = byId("timeline-service");
    this.choice.addEventListener("change", () => {
      this.#host = this.choice.value;
      this.showAll();
    });
  }

  // The services that can be chosen; the choice stays.
  showServices() {
    const wanted = ["", ...this.fleet.order];
    const had = [...this.choice.options].map((option) => option.value);
    if (wanted.join(" ") === had.join(" ")) return;
    if (!wanted.includes(this.#host)) this.#host = "";
    const options = wanted.map((host) => make("option", { value: host }, host || "every service"));
    this.choice.replaceChildren(...options);
    this.choice.value = this.#host;
  }

  // `fresh` are the transitions since the last time, oldest first.
  add(fresh) {
    const asked = fresh.filter((transition) => this.#isAskedFor(transition)).slice(-SHOWN_MAX);
    this.list.prepend(...asked.reverse().map((transition) => entry(transition)));
    while (this.list.children.length > SHOWN_MAX) this.list.lastElementChild.remove();
    this.#showNone();
  }

  showAll() {
    const asked = this.fleet.transitions.filter((each) => this.#isAskedFor(each)).slice(0, SHOWN_MAX);
    this.list.replaceChildren(...asked.map((transition) => entry(transition)));
    this.#showNone();
  }

  #isAskedFor = (transition) => this.#host === "" || transition.service === this.#host;

  #showNone() {
    const isEmpty = this.list.children.length === 0;
    setHidden(byId("timeline-none"), !isEmpty);
    if (isEmpty) setText(byId("timeline-none"), "Nothing has happened yet.");
  }
}
