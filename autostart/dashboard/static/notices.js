// What became of a button: short words at the edge of the page. What was refused stays until it is
// closed, with what the API said to do next.

import { icon, make } from "./dom.js";

const KEPT_MAX = 4;
const DONE_SECONDS = 5;

export class Notices {
  constructor(list) {
    this.list = list;
  }

  done(text) {
    const notice = this.#add("done", make("p", {}, text));
    setTimeout(() => notice.remove(), DONE_SECONDS * 1000);
  }

  // `ways` are further buttons: [label, what it does].
  refused(what, error, ways = []) {
    const said = [make("p", {}, make("strong", {}, `${what}: refused`))];
    if (error.problems) {
      said.push(make("ul", {}, ...error.problems.map((problem) => make("li", {}, problem))));
    } else {
      said.push(make("p", {}, error.message));
    }
    if (error.hint) said.push(make("p", { class: "hint" }, `Next: ${error.hint}`));
    this.#add("refused", ...said, ways);
  }

  failed(what, error) {
    this.#add("refused", make("p", {}, make("strong", {}, `${what}: not done`)), make("p", {}, error.message));
  }

  #add(kind, ...parts) {
    const ways = Array.isArray(parts.at(-1)) ? parts.pop() : [];
    const close = make("button", { type: "button", class: "quiet close", "aria-label": "Close this notice" }, icon("close"));
    const body = make("div", { class: "said" }, ...parts);
    const spoken = { class: `notice notice-${kind}`, role: kind === "done" ? "status" : "alert" };
    const notice = make("div", spoken, icon(kind === "done" ? "ready" : "failed"), body, close);
    const remove = () => notice.remove();
    close.addEventListener("click", remove);
    if (ways.length) {
      const buttons = ways.map(([label, act]) =>
        make("button", { type: "button", onclick: () => (remove(), act()) }, label),
      );
      body.append(make("div", { class: "ways" }, ...buttons));
    }
    this.list.prepend(notice);
    while (this.list.children.length > KEPT_MAX) this.list.lastElementChild.remove();
    return notice;
  }
}
