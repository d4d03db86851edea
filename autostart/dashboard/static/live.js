// The stream of what happens, for as long as somebody looks. Its loss is told, and it is tried
// again until it is back; then what was missed is caught up on.

const AGAIN_SECONDS = [1, 2, 4, 8];
// A page in the background gives its connection back: a browser has six for one host.
const HIDDEN_SECONDS = 60;

export class Live {
  #source = null;
  #lastId = "0";
  #failures = 0;
  #again = 0;
  #leaving = 0;
  #isOpen = false;

  // `on` has: opened(), lost(), service(answer), removed(host), transition(transition, id), progress(line);
  // `mayRetry()` resolves when it makes sense to try again, after a login for example.
  constructor(on, mayRetry) {
    this.on = on;
    this.mayRetry = mayRetry;
    document.addEventListener("visibilitychange", () => this.#look());
    addEventListener("online", () => this.#retryNow());
  }

  connect() {
    this.close();
    const source = new EventSource(`api/events?last_event_id=${encodeURIComponent(this.#lastId)}`);
    this.#source = source;
    source.addEventListener("open", () => {
      this.#failures = 0;
      this.#isOpen = true;
      this.on.opened();
    });
    source.addEventListener("error", () => this.#lost(source));
    source.addEventListener("transition", (event) => {
      if (event.lastEventId) this.#lastId = event.lastEventId;
      this.on.transition(JSON.parse(event.data), event.lastEventId);
    });
    source.addEventListener("service", (event) => this.on.service(JSON.parse(event.data)));
    source.addEventListener("removed", (event) => this.on.removed(JSON.parse(event.data).host));
    source.addEventListener("progress", (event) => this.on.progress(JSON.parse(event.data)));
  }

  close() {
    clearTimeout(this.#again);
    this.#source?.close();
    this.#source = null;
    this.#isOpen = false;
  }

  // A browser gives up on an answer that is no stream, such as a proxy's 502: so we ask again
  // ourselves, in every case alike.
  #lost(source) {
    if (source !== this.#source) return;
    this.close();
    this.on.lost();
    const seconds = AGAIN_SECONDS[Math.min(this.#failures, AGAIN_SECONDS.length - 1)];
    this.#failures += 1;
    this.#again = setTimeout(() => this.#retryNow(), seconds * 1000);
  }

  async #retryNow() {
    if (this.#source !== null || document.hidden) return;
    clearTimeout(this.#again);
    await this.mayRetry();
    if (this.#source === null) this.connect();
  }

  #look() {
    clearTimeout(this.#leaving);
    if (document.hidden) this.#leaving = setTimeout(() => this.close(), HIDDEN_SECONDS * 1000);
    else if (!this.#isOpen) this.#retryNow();
  }
}
