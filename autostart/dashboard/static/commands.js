// What the buttons do. Each is one call of the API; the API decides, and its words are shown.

import { byId, make, setText } from "./dom.js";
import { Refused } from "./api.js";
import { isDuration, plural } from "./words.js";

const KEEP_FOR = ["15m", "1h", "2h", "8h", "1d"];

export class Commands {
  // `busy(host, verb, isBusy)` is told while a call is under way.
  constructor({ api, fleet, notices, busy, openLog }) {
    Object.assign(this, { api, fleet, notices, busy, openLog });
    this.#wireKeep();
    this.#wireConfirm();
  }

  start = (host) => this.#run(host, "start", "Start", "start");
  prepare = (host) => this.#run(host, "prepare", "Prepare", "prepare");
  restart = (host) => this.#run(host, "restart", "Restart", "restart");
  stop = (host) => this.#run(host, "stop", "Stop", "stop");
  drain = (host) => this.#run(host, "drain", "Drain", "stop", { drain: true });
  hold = (host) => this.#run(host, "hold", "Hold", "stop", { hold: true });
  logs = (host) => this.openLog(host);

  keep(host) {
    const dialog = byId("keep");
    setText(byId("keep-host"), host);
    setText(byId("keep-problem"), "");
    dialog.dataset.host = host;
    dialog.showModal();
    byId("keep-for").select();
  }

  force(host) {
    const leases = this.fleet.get(host)?.leases ?? [];
    const cut = leases.length
      ? `This cuts ${plural(leases.length, "request")} in the middle:`
      : "No request uses it now. One that comes meanwhile is cut.";
    setText(byId("force-host"), host);
    setText(byId("force-cuts"), cut);
    byId("force-leases").replaceChildren(...leases.slice(0, 5).map((lease) => make("li", {}, lease.about)));
    byId("force").dataset.host = host;
    byId("force").showModal();
  }

  async reload() {
    this.busy(null, "reload", true);
    try {
      const { taken } = await this.api.reload();
      this.notices.done(taken.length ? `The map was read again; changed: ${taken.join(", ")}` : "The map was read again; nothing has changed");
      return true;
    } catch (error) {
      this.#tell("Reload of the map", error);
      return false;
    } finally {
      this.busy(null, "reload", false);
    }
  }

  async #run(host, button, label, verb, options = {}) {
    this.busy(host, button, true);
    try {
      this.fleet.take(await this.api.command(host, verb, options));
      return true;
    } catch (error) {
      const ways = error instanceof Refused && error.code === "service-leased" ? this.#ways(host, options) : [];
      this.#tell(`${label} ${host}`, error, ways);
      return false;
    } finally {
      this.busy(host, button, false);
    }
  }

  // What else to do with a service that is in use.
  #ways(host, { hold = false }) {
    const drain = () => this.#run(host, "drain", "Drain", "stop", { drain: true, hold });
    return [["Drain: wait for them", drain], ["Force…", () => this.force(host)]];
  }

  #tell(what, error, ways = []) {
    if (error instanceof Refused) this.notices.refused(what, error, ways);
    else this.notices.failed(what, error);
  }

  #wireKeep() {
    const dialog = byId("keep");
    const field = byId("keep-for");
    const choices = KEEP_FOR.map((written) =>
      make("button", { type: "button", onclick: () => ((field.value = written), field.focus()) }, written),
    );
    byId("keep-choices").replaceChildren(...choices);
    dialog.querySelector("form").addEventListener("submit", async (event) => {
      event.preventDefault();
      if (!isDuration(field.value)) {
        setText(byId("keep-problem"), "Allowed: a duration such as 15m, 2h, 1h30m.");
        field.focus();
        return;
      }
      dialog.close();
      const host = dialog.dataset.host;
      const written = field.value.trim();
      if (await this.#run(host, "keep", "Keep", "keep", { for: written })) {
        this.notices.done(`${host} is kept for ${written}`);
      }
    });
  }

  #wireConfirm() {
    const dialog = byId("force");
    dialog.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      dialog.close();
      this.#run(dialog.dataset.host, "force", "Force", "stop", { force: true });
    });
  }
}
