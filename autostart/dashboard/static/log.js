// The live log of one service: its last lines, then new ones as they come. What is kept is bounded;
// a service that prints a lot costs old lines, not the page.

import { byId, make, setAttribute, setText } from "./dom.js";
import { plainLine, plural } from "./words.js";

const LINES_ASKED = 200;
export const LINES_MAX = 2000;
const AGAIN_SECONDS = 2;
// How near the end counts as at the end.
const NEAR_PIXELS = 40;

export class Log {
  #lines = []; // { text, element }, element null while it is filtered out
  #fresh = [];
  #gone = 0;
  #filter = "";
  #isPaused = false;
  #isDue = false;
  #ending = null;

  constructor(api) {
    this.api = api;
    this.dialog = byId("log");
    this.list = byId("log-lines");
    this.scroller = byId("log-scroll");
    this.#wire();
  }

  open(host) {
    this.#reset();
    setText(byId("log-host"), host);
    this.dialog.showModal();
    this.scroller.focus();
    this.#ending = new AbortController();
    this.#follow(host, this.#ending.signal);
  }

  async #follow(host, signal) {
    let isFirst = true;
    while (!signal.aborted) {
      try {
        this.#say(isFirst ? "asking …" : "connection lost, trying again");
        const response = await this.api.logs(host, LINES_ASKED, signal);
        // What comes is the end of the log again: the lines that we have are in it.
        if (!isFirst) this.#forget();
        isFirst = false;
        this.#say("live");
        await this.#read(response.body, signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#say(error.status ? error.message : "connection lost, trying again");
        if (error.status && error.status < 500) return;
      }
      isFirst = isFirst && this.#lines.length === 0;
      await new Promise((resolve) => setTimeout(resolve, AGAIN_SECONDS * 1000));
    }
  }

  async #read(body, signal) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done || signal.aborted) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      this.#take(lines);
    }
  }

  #take(lines) {
    for (const line of lines) this.#fresh.push({ text: plainLine(line), element: null });
    if (this.#fresh.length > LINES_MAX) {
      this.#gone += this.#fresh.length - LINES_MAX;
      this.#fresh = this.#fresh.slice(-LINES_MAX);
    }
    this.#showSoon();
  }

  #showSoon() {
    if (this.#isDue) return;
    this.#isDue = true;
    requestAnimationFrame(() => {
      this.#isDue = false;
      this.#show();
    });
  }

  #show() {
    if (!this.#isPaused) {
      const isAtEnd = this.#isAtEnd();
      const fresh = this.#fresh.splice(0);
      for (const line of fresh) this.#make(line);
      this.#lines.push(...fresh);
      this.list.append(...fresh.flatMap((line) => line.element ?? []));
      const over = this.#lines.splice(0, Math.max(0, this.#lines.length - LINES_MAX));
      for (const line of over) line.element?.remove();
      this.#gone += over.length;
      if (isAtEnd) this.scroller.scrollTop = this.scroller.scrollHeight;
    }
    this.#count();
  }

  #make(line) {
    const isAsked = line.text.toLowerCase().includes(this.#filter);
    line.element = isAsked ? make("li", {}, line.text === "" ? "\u00a0" : line.text) : null;
  }

  #count() {
    const shown = this.list.children.length;
    const parts = [this.#filter ? `${shown} of ${plural(this.#lines.length, "line")}` : plural(shown, "line")];
    if (this.#isPaused && this.#fresh.length) parts.push(`${this.#fresh.length} new`);
    if (this.#gone) parts.push(`${this.#gone} older ones not kept`);
    setText(byId("log-count"), parts.join(" · "));
  }

  #isAtEnd() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    return scrollHeight - scrollTop - clientHeight < NEAR_PIXELS;
  }

  #say(standing) {
    setText(byId("log-standing"), standing);
    byId("log-standing").dataset.standing = standing === "live" ? "live" : "other";
  }

  #pause(isPaused) {
    this.#isPaused = isPaused;
    setText(byId("log-pause"), isPaused ? "Resume" : "Pause");
    setAttribute(byId("log-pause"), "aria-pressed", String(isPaused));
    this.#showSoon();
  }

  async #copy() {
    const text = this.#lines.filter((line) => line.element).map((line) => line.text).join("\n");
    const button = byId("log-copy");
    try {
      await navigator.clipboard.writeText(`${text}\n`);
      setText(button, "Copied");
    } catch {
      // Not over http from another machine: then the lines are marked, for the keyboard.
      getSelection().selectAllChildren(this.list);
      setText(button, "Marked");
    }
    setTimeout(() => setText(button, "Copy"), 1500);
  }

  #forget() {
    this.#lines = [];
    this.#fresh = [];
    this.list.replaceChildren();
  }

  #reset() {
    this.#forget();
    this.#gone = 0;
    this.#filter = "";
    byId("log-filter").value = "";
    this.#pause(false);
  }

  #wire() {
    this.dialog.addEventListener("close", () => {
      this.#ending?.abort();
      this.#forget();
    });
    byId("log-close").addEventListener("click", () => this.dialog.close());
    byId("log-pause").addEventListener("click", () => this.#pause(!this.#isPaused));
    byId("log-copy").addEventListener("click", () => this.#copy());
    byId("log-wrap").addEventListener("change", (event) => {
      this.list.classList.toggle("wrapped", event.target.checked);
    });
    byId("log-filter").addEventListener("input", (event) => {
      this.#filter = event.target.value.toLowerCase();
      for (const line of this.#lines) this.#make(line);
      this.list.replaceChildren(...this.#lines.flatMap((line) => line.element ?? []));
      this.scroller.scrollTop = this.scroller.scrollHeight;
      this.#count();
    });
  }
}
