// The operator's API as the page uses it. Addresses are relative: the page works below any prefix
// that a reverse proxy puts before it.

const CALL_SECONDS = 15;

// What the API refused, in its own words.
export class Refused extends Error {
  constructor(status, answer) {
    super(answer?.detail ?? `autostart answered ${status}`);
    this.status = status;
    this.code = answer?.error?.code ?? "";
    this.hint = answer?.hint ?? "";
    this.problems = answer?.problems ?? null;
  }
}

// No answer at all, or none in time.
export class Unreachable extends Error {}

export class Api {
  // `logIn()` resolves once the operator has logged in.
  constructor(logIn) {
    this.logIn = logIn;
  }

  services = () => this.#get("api/services");
  usage = () => this.#get("api/usage");
  history = (days) => this.#get(`api/history?days=${days}`);
  reload = () => this.#post("api/reload");

  command(host, verb, options = {}) {
    return this.#post(`api/services/${encodeURIComponent(host)}/${verb}`, options);
  }

  // A response whose body is the service's output, for as long as `signal` lets it be.
  logs(host, lines, signal) {
    const path = `api/services/${encodeURIComponent(host)}/logs?lines=${lines}&follow=1`;
    return this.#answered(path, { signal });
  }

  // How this browser stands; never asks to log in.
  standing = () => this.#answered("login", {}, { patient: true }).then((answer) => answer.json());

  async presentToken(token) {
    const answer = await this.#answered("login", asJson({ token }), { patient: true });
    return answer.json();
  }

  async logOut() {
    await this.#answered("logout", asJson({}), { patient: true });
  }

  async #get(path) {
    return (await this.#answered(path, {})).json();
  }

  async #post(path, body = {}) {
    return (await this.#answered(path, asJson(body))).json();
  }

  async #answered(path, options, { patient = false } = {}) {
    const signal = options.signal ?? AbortSignal.timeout(CALL_SECONDS * 1000);
    let response;
    try {
      response = await fetch(path, { ...options, signal, cache: "no-store" });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      throw new Unreachable("autostart does not answer", { cause: error });
    }
    if (response.ok) return response;
    const refused = new Refused(response.status, await response.json().catch(() => null));
    if (patient || !(await this.#wantsLogin(refused))) throw refused;
    await this.logIn();
    return this.#answered(path, options, { patient: true });
  }

  async #wantsLogin(refused) {
    if (refused.code !== "forbidden") return false;
    const { token_needed: needed, open } = await this.standing();
    return needed && !open;
  }
}

const asJson = (body) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
});
