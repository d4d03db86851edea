// The docs page: which service, where it stands, and Swagger UI for its document.
//
// A document is what a service says, so it gets nothing done by being read: until somebody presses
// Execute, no request leaves for any service (see `fetch` below), and then only for the chosen one.
// Keys that a reader types are kept by service, so that no other service's document is sent them.

"use strict";

const FOLDER = "/.autostart/docs/";
const POLL_MILLISECONDS = 3000;
const POLL_WAITING_MILLISECONDS = 1000;
const TICK_MILLISECONDS = 200;
const WORDS = {
  stopped: ["asleep", "asleep"],
  starting: ["starting", "busy"],
  ready: ["ready", "ready"],
  stopping: ["stopping", "busy"],
  failed: ["failed", "failed"],
};

const isPortal = document.documentElement.dataset.place === "portal";
const find = (id) => document.getElementById(id);
const nativeFetch = window.fetch.bind(window);

let services = [];
let here = "";
let chosen = null; // the host of the service that is shown
let shownVersion = null; // of its document, null while none is shown
const executions = new Set(); // those under way: when each began, and what came
let outcome = null; // what the last Execute came to
let pollTimer = 0;

// What may be fetched.

window.fetch = (input, options = {}) => {
  const url = new URL(input instanceof Request ? input.url : input, location.href);
  if (url.origin === location.origin && url.pathname.startsWith(FOLDER)) {
    return nativeFetch(input, options);
  }
  const service = current();
  const execution = latest((each) => each.answer === null);
  if (execution === null || service === null || !belongsTo(service, url)) {
    return Promise.reject(new TypeError(`not fetched, for nobody pressed Execute: ${url.href}`));
  }
  const credentials = service.may_log_in ? "include" : "omit";
  return nativeFetch(input, { ...options, credentials }).then((answer) => {
    execution.answer = answer;
    return answer;
  });
};

// The origin of a service that has only wildcards holds a "*" for one name or more.
function belongsTo(service, url) {
  const [before, after] = service.origin.split("*");
  if (after === undefined) {
    return url.origin === service.origin;
  }
  return url.origin.startsWith(before) && url.origin.endsWith(after) && url.origin.length > service.origin.length - 1;
}

function latest(fits = () => true) {
  return [...executions].filter((each) => each.host === chosen && fits(each)).at(-1) ?? null;
}

function current() {
  return services.find((service) => service.host === chosen) ?? null;
}

// Where the services stand.

async function poll() {
  clearTimeout(pollTimer);
  try {
    const answer = await nativeFetch(`${FOLDER}services.json`, { cache: "no-store" });
    if (answer.ok) {
      ({ here, services } = await answer.json());
      draw();
    }
  } catch {
    // autostart restarts, or the network is away: the next one tells.
  }
  const wait = latest() === null ? POLL_MILLISECONDS : POLL_WAITING_MILLISECONDS;
  pollTimer = setTimeout(poll, wait);
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(pollTimer);
  if (!document.hidden) {
    poll();
  }
});

// Drawing.

function draw() {
  if (chosen === null || current() === null) {
    choose();
  }
  drawList();
  const service = current();
  find("head").hidden = find("banner").hidden = service === null;
  if (service === null) {
    find("first").hidden = true;
    find("none").textContent = here ? "No service of the map has docs." : "";
    return;
  }
  document.title = isPortal ? `${service.name}: API docs` : service.name;
  find("name").textContent = service.name;
  drawState(find("state"), service);
  drawAddress(service);
  find("fetched").textContent = service.fetched_at ? `docs as of ${ago(service.fetched_at)}` : "";
  if (service.version !== null && shownVersion === null) {
    show(service);
  }
  find("first").hidden = service.version !== null;
  for (const label of document.querySelectorAll("#first label")) {
    label.hidden = !service[label.dataset.asks];
  }
  if (service.state === "stopped" && outcome !== null && outcome[0] === "ready") {
    outcome = null; // it fell asleep again since
  }
  drawBanner();
}

function drawList() {
  const list = find("list");
  const wanted = find("find").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (service) => wanted.every((word) => `${service.name} ${service.host}`.toLowerCase().includes(word));
  const listed = services.filter(fits);
  const kept = new Map([...list.children].map((item) => [item.dataset.host, item]));
  const items = listed.map((service) => {
    const item = kept.get(service.host) ?? newItem(service);
    const [link] = item.children;
    link.children[0].textContent = service.name;
    drawState(link.children[2], service);
    link.toggleAttribute("aria-current", service.host === chosen);
    if (service.host === chosen) {
      link.setAttribute("aria-current", "page");
    }
    return item;
  });
  // Only when it differs: a link that is moved loses the focus.
  if (items.length !== list.children.length || items.some((item, index) => list.children[index] !== item)) {
    list.replaceChildren(...items);
    const marked = list.querySelector("[aria-current]");
    const pane = document.querySelector(".services"); // scrollIntoView would move the page as well
    pane.scrollTop = marked === null ? 0 : marked.offsetTop - pane.clientHeight / 2;
  }
  find("count").textContent = listed.length === services.length ? services.length : `${listed.length} of ${services.length}`;
  find("none").textContent = services.length && !listed.length ? "No service is called so." : "";
}

function newItem(service) {
  const item = document.createElement("li");
  item.dataset.host = service.host;
  const link = document.createElement("a");
  link.href = `#${encodeURIComponent(service.host)}`;
  const name = document.createElement("b");
  const state = document.createElement("span");
  state.className = "state";
  const host = document.createElement("small");
  host.textContent = service.host;
  link.append(name, host, state);
  item.append(link);
  return item;
}

function drawState(element, service) {
  const [word, kind] = WORDS[service.state] ?? [service.state, "asleep"];
  element.textContent = service.phase === "preparing" ? "preparing" : word;
  element.dataset.kind = kind;
}

function drawAddress(service) {
  const address = find("address");
  const isOne = !service.origin.includes("*");
  address.textContent = isOne ? `${service.origin}/docs` : service.origin;
  address.hidden = !isPortal;
  if (isOne) {
    address.href = `${service.origin}/docs`;
  } else {
    address.removeAttribute("href");
  }
}

function drawBanner() {
  const service = current();
  const execution = latest();
  const [kind, told] = execution ? waitingWords(service, execution) : outcome ?? restingWords(service);
  find("banner").dataset.kind = kind;
  find("banner").toggleAttribute("data-sticks", execution !== null || outcome !== null);
  if (find("told").textContent !== told) {
    find("told").textContent = told; // said again by a screen reader only when it changes
  }
  const isNew = execution === null && shownVersion !== null && service.version !== null && service.version !== shownVersion;
  find("again").hidden = !isNew;
  drawClock(service, execution);
}

function drawClock(service, execution) {
  const isStarting = execution !== null && execution.wasAsleep;
  find("clock").hidden = execution === null;
  find("progress").hidden = !isStarting;
  if (execution === null) {
    return;
  }
  const elapsed = (performance.now() - execution.began) / 1000;
  const usual = service.usual_start_seconds;
  const ofUsually = isStarting && usual ? ` of usually ${seconds(usual)}` : "";
  find("clock").textContent = `${isStarting ? "starting… " : ""}${elapsed.toFixed(0)} s${ofUsually}`;
  if (usual) {
    find("progress").max = usual;
    find("progress").value = Math.min(elapsed, usual);
  } else {
    find("progress").removeAttribute("value");
  }
}

function restingWords(service) {
  const usual = service.usual_start_seconds ? `, usually in ${seconds(service.usual_start_seconds)}` : "";
  if (here && here !== location.origin) {
    return ["failed", `The proxy before autostart says that this is ${here}: Execute will fail until it sends Host and X-Forwarded-Proto.`];
  }
  if (!service.may_call) {
    return ["failed", `Execute works only at ${service.origin}/docs: the service's cors in the map does not name ${here}.`];
  }
  if (service.version === null && service.state === "stopped") {
    return ["asleep", "The service is asleep, and its docs are not known yet."];
  }
  switch (service.state) {
    case "ready":
      return ["ready", "The service is ready: Execute is answered at once."];
    case "starting":
      return ["busy", `The service is starting${usual}.`];
    case "failed":
      return ["failed", "The last start failed. Execute says why, and tries again when that is due."];
    default:
      return ["asleep", `The service is asleep, and reading leaves it so. Execute starts it${usual}.`];
  }
}

function waitingWords(service, execution) {
  if (!execution.wasAsleep) {
    return ["busy", "Waiting for the answer."];
  }
  if (service.state === "ready") {
    return ["ready", "The service is ready and works on the answer."];
  }
  if (service.phase === "preparing") {
    return ["busy", "The service is being pulled or built first: that may take minutes."];
  }
  const usual = service.usual_start_seconds ? `: usually ${seconds(service.usual_start_seconds)} …` : " …";
  return ["busy", `The service is asleep and starts now${usual}`];
}

function seconds(count) {
  return count < 10 ? `${Math.max(count, 0.1).toFixed(1)} s` : `${Math.round(count)} s`;
}

function ago(when) {
  return new Date(when).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

// Choosing.

function choose() {
  const asked = location.hash.slice(1);
  const known = services.find((service) => encodeURIComponent(service.host) === asked || service.host === asked) ?? services[0] ?? null;
  const host = known === null ? null : known.host;
  if (host !== chosen) {
    chosen = host;
    shownVersion = null;
    outcome = null;
    find("swagger").replaceChildren();
  }
}

window.addEventListener("hashchange", () => {
  choose();
  if (matchMedia("(max-width: 48rem)").matches) {
    document.querySelector(".services details").open = false;
  }
  draw();
  find("reading").focus({ preventScroll: true });
  scrollTo(0, 0);
});

// Showing a document.

function show(service) {
  shownVersion = service.version;
  const place = document.createElement("div");
  find("swagger").replaceChildren(place);
  const ui = SwaggerUIBundle({
    url: `${FOLDER}documents/${encodeURIComponent(service.host)}`,
    domNode: place,
    presets: [SwaggerUIBundle.presets.apis],
    layout: "BaseLayout",
    plugins: [() => ({ statePlugins: { auth: keepsKeys(service.host), spec: tellsExecutions() } })],
    tryItOutEnabled: true,
    displayRequestDuration: true,
    persistAuthorization: false, // it would keep one set of keys for all services: see keepsKeys
    queryConfigEnabled: false,
    validatorUrl: null,
    onComplete: () => restoreKeys(ui, service.host),
  });
}

function keepsKeys(host) {
  const keep = (original, system) => () => {
    localStorage.setItem(`keys of ${host}`, JSON.stringify(system.authSelectors.authorized()));
  };
  return { wrapActions: { persistAuthorizationIfNeeded: keep } };
}

function restoreKeys(ui, host) {
  try {
    const kept = JSON.parse(localStorage.getItem(`keys of ${host}`));
    if (kept) {
      ui.authActions.restoreAuthorization(kept);
    }
  } catch {
    localStorage.removeItem(`keys of ${host}`);
  }
}

// Execute.

function tellsExecutions() {
  const executeRequest = (original) => (request) => {
    const service = current();
    const mine = { host: service.host, began: performance.now(), wasAsleep: service.state !== "ready", answer: null };
    executions.add(mine);
    outcome = null;
    const ticker = setInterval(drawBanner, TICK_MILLISECONDS);
    drawBanner();
    poll(); // it may have fallen asleep, or been woken, a second ago
    return Promise.resolve(original(request)).finally(() => {
      clearInterval(ticker);
      executions.delete(mine);
      if (mine.host === chosen) {
        outcome = outcomeWords(mine);
        drawBanner();
      }
      poll();
    });
  };
  return { wrapActions: { executeRequest } };
}

function outcomeWords(ended) {
  const took = seconds((performance.now() - ended.began) / 1000);
  if (ended.answer === null) {
    return ["failed", `No answer after ${took}: the browser could not reach the service, or was not let.${loginHint()}`];
  }
  const code = ended.answer.headers.get("Autostart-Error");
  if (code !== null) {
    const again = ended.answer.headers.get("Retry-After");
    return ["failed", `Not answered by the service: ${code}, after ${took}.${again ? ` Try again in ${again} s.` : ""}`];
  }
  if (ended.answer.headers.get("Autostart-Start") === "cold") {
    return ["ready", `The service was asleep: started and answered in ${took}.`];
  }
  return ["ready", `Answered in ${took}.`];
}

// A proxy that asks for a login does not say so to a page of another host, and not every browser
// asks its reader then.
function loginHint() {
  const service = current();
  return isPortal && !service.origin.includes("*") ? ` If a login stands before it, give it once at ${service.origin}/docs.` : "";
}

// The first start, of a service whose docs nobody knows.

find("first").addEventListener("submit", async (event) => {
  event.preventDefault();
  const service = current();
  const headers = {};
  if (service.keys && find("key").value) {
    headers.Authorization = `Bearer ${find("key").value}`;
  } else if (service.logins && find("user").value) {
    const login = new TextEncoder().encode(`${find("user").value}:${find("password").value}`);
    headers.Authorization = `Basic ${btoa(String.fromCharCode(...login))}`;
  }
  const origin = service.origin.replace("*", "autostart");
  const credentials = service.may_log_in ? "include" : "omit";
  try {
    const answer = await nativeFetch(`${origin}/.autostart/wake`, { method: "POST", headers, credentials });
    const code = answer.headers.get("Autostart-Error");
    outcome = answer.ok ? null : ["failed", `It was not started: ${code ?? answer.status}.`];
  } catch {
    outcome = ["failed", `It was not started: the browser could not reach the service, or was not let.${loginHint()}`];
  }
  poll();
});

// The page.

find("find").addEventListener("input", drawList);
find("again").addEventListener("click", () => show(current()));

const dark = matchMedia("(prefers-color-scheme: dark)");
const followScheme = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", followScheme);
followScheme();

if (matchMedia("(max-width: 48rem)").matches && location.hash) {
  document.querySelector(".services details").open = false;
}
if (!isPortal) {
  find("count").textContent = "";
}
window.addEventListener("DOMContentLoaded", poll);
