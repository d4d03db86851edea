// What the page knows: services as the API last told them, and since when it knows that. Knows no
// element of the page; whoever shows something of it observes.

const TRANSITIONS_MAX = 1000;

// null while there is nothing to compare with: the first sample of a run, or an engine that does
// not tell processor time. A sample that was told twice says what it said before.
function coresSince(last, cpuSeconds, at) {
  if (last === undefined || cpuSeconds === null || last.cpuSeconds === null) return null;
  if (cpuSeconds < last.cpuSeconds) return null;
  return at > last.at ? (cpuSeconds - last.cpuSeconds) / (at - last.at) : last.cores;
}

// What is the same stays the same object: nothing is drawn again for it.
const isSame = (one, other) => JSON.stringify(one) === JSON.stringify(other);

export class Fleet {
  isLoaded = false;
  // Called with the host whose row changed, or null for the list as a whole.
  observers = [];
  order = [];
  transitions = []; // newest first

  #services = new Map();
  #usage = new Map();
  #history = new Map();
  #seen = new Set();

  get size() {
    return this.order.length;
  }

  get(host) {
    return this.#services.get(host)?.answer ?? null;
  }

  // Seconds since the answer about this service was made: what its "…_seconds" have to move by.
  age(host) {
    const known = this.#services.get(host);
    return known === undefined ? 0 : (performance.now() - known.at) / 1000;
  }

  usage = (host) => this.#usage.get(host) ?? null;
  history = (host) => this.#history.get(host) ?? null;

  *all() {
    for (const host of this.order) yield this.get(host);
  }

  take(answer) {
    const isNew = !this.#services.has(answer.host);
    this.#services.set(answer.host, { answer, at: performance.now() });
    if (isNew) this.order.push(answer.host);
    this.#tell(isNew ? null : answer.host);
  }

  remove(host) {
    if (!this.#services.delete(host)) return;
    this.order = this.order.filter((each) => each !== host);
    this.#tell(null);
  }

  // Part of an answer, told by itself; what it counts from stays.
  note(host, part) {
    const known = this.#services.get(host);
    known.answer = { ...known.answer, ...part };
    this.#tell(host);
  }

  // A whole list, asked for at `askedAt`. What was told of a service since then is newer than it.
  takeAll(answers, askedAt) {
    const at = performance.now();
    const listed = new Set(answers.map((answer) => answer.host));
    for (const answer of answers) {
      const known = this.#services.get(answer.host);
      if (known === undefined || known.at < askedAt) this.#services.set(answer.host, { answer, at });
    }
    for (const host of this.#services.keys()) {
      if (!listed.has(host)) this.#services.delete(host);
    }
    this.order = answers.map((answer) => answer.host);
    this.isLoaded = true;
    this.#tell(null);
  }

  // Shares of one core are what processor time grew by since the sample before.
  takeUsage(samples) {
    const before = this.#usage;
    this.#usage = new Map();
    for (const sample of samples) {
      if (sample.memory_bytes === null || sample.memory_bytes === undefined) continue;
      const at = Date.parse(sample.at) / 1000;
      const last = before.get(sample.host);
      const { memory_bytes: memoryBytes, cpu_seconds: cpuSeconds } = sample;
      this.#usage.set(sample.host, { memoryBytes, cpuSeconds, cores: coresSince(last, cpuSeconds, at), at });
    }
    for (const host of this.order) {
      if (before.has(host) || this.#usage.has(host)) this.#tell(host);
    }
  }

  takeHistory(answer) {
    const before = this.#history;
    this.#history = new Map();
    for (const service of answer.services) {
      const known = before.get(service.host);
      const starts = isSame(known?.starts, service.starts) ? known.starts : service.starts;
      this.#history.set(service.host, { ...service, starts });
      this.#tell(service.host);
    }
  }

  // Returns whether it is new: after a reconnection the stream may repeat itself.
  takeTransition(transition, id) {
    const key = id || JSON.stringify(transition);
    if (this.#seen.has(key)) return false;
    this.#seen.add(key);
    this.transitions.unshift({ ...transition, key });
    while (this.transitions.length > TRANSITIONS_MAX) this.#seen.delete(this.transitions.pop().key);
    return true;
  }

  #tell(host) {
    for (const observer of this.observers) observer(host);
  }
}
