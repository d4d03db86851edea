// The token, asked for once. The page stays as it is behind the dialog, and goes on after it.

import { byId, setHidden, setText } from "./dom.js";

class Waiting {
  promise = new Promise((resolve) => (this.resolve = resolve));
}

export class Login {
  #api = null;
  #waiting = null;

  constructor() {
    this.dialog = byId("login");
    this.field = byId("login-token");
    this.problem = byId("login-problem");
    this.button = byId("login-submit");
    this.dialog.addEventListener("cancel", (event) => event.preventDefault());
    this.dialog.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#present();
    });
  }

  use(api) {
    this.#api = api;
  }

  // Resolves once the token was right; however many ask, one dialog is shown.
  ask(why = "") {
    this.#waiting ??= new Waiting();
    if (!this.dialog.open) {
      setText(this.problem, why);
      this.dialog.showModal();
      this.field.focus();
    }
    return this.#waiting.promise;
  }

  async #present() {
    const token = this.field.value.trim();
    if (!token) return this.#say("Enter the token.");
    this.button.disabled = true;
    try {
      await this.#api.presentToken(token);
    } catch (error) {
      return this.#say(error.status === 429 ? `${error.message}; wait a moment and try again` : error.message);
    } finally {
      this.button.disabled = false;
    }
    this.field.value = "";
    this.dialog.close();
    setHidden(byId("log-out"), false);
    this.#waiting?.resolve();
    this.#waiting = null;
  }

  #say(problem) {
    setText(this.problem, problem.charAt(0).toUpperCase() + problem.slice(1));
    this.field.select();
  }
}
