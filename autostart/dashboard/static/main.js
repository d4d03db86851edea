// Wires the parts: the API tells, the fleet keeps, tables and lists show, buttons ask the API.

import { Api } from "./api.js";
import { Commands } from "./commands.js";
import { Details } from "./details.js";
import { byId, setAttribute, setHidden, setText } from "./dom.js";
import { Fleet } from "./fleet.js";
import { Live } from "./live.js";
import { Log } from "./log.js";
import { Login } from "./login.js";
import { Notices } from "./notices.js";
import { showSummary } from "./summary.js";
import { Table } from "./table.js";
import { Timeline } from "./timeline.js";

const USAGE_SECONDS = 5;
// What a run takes of a processor is known from its second sample on; the daemon keeps one for 2 s.
const USAGE_SECOND_SECONDS = 2.2;
const HISTORY_DAYS = 7;
const HISTORY_SECONDS = 300;
// The stream tells of every change; this is for the order of the map after a reload.
const SERVICES_SECONDS = 60;

const login = new Login();
const api = new Api(() => login.ask());
login.use(api);
const fleet = new Fleet();
const notices = new Notices(byId("notices"));
const log = new Log(api);
const commands = new Commands({ api, fleet, notices, busy: showBusy, openLog: (host) => log.open(host) });
const ways = { onCommand: (verb, host) => commands[verb](host), onOpen: openDetails };
const table = new Table(fleet, ways);
const timeline = new Timeline(fleet);
const details = new Details(fleet, { ...ways, onClose: closeDetails });

// What changed since the last frame is shown in the next one, once.
const due = { hosts: new Set(), all: false, transitions: [], asked: false };

fleet.observers.push((host) => {
  if (host === null) due.all = true;
  else due.hosts.add(host);
  showSoon();
});

function showSoon() {
  if (due.asked) return;
  due.asked = true;
  requestAnimationFrame(show);
}

function show() {
  due.asked = false;
  const hosts = [...due.hosts];
  const isAll = due.all;
  const fresh = due.transitions.splice(0);
  due.hosts.clear();
  due.all = false;
  if (isAll) {
    table.showAll();
    timeline.showServices();
  } else if (hosts.length) {
    for (const host of hosts) table.showRow(host);
    table.arrange();
  }
  if (isAll || hosts.length) showSummary(fleet);
  if (isAll || hosts.includes(details.host)) details.show(busyVerbs(details.host));
  if (fresh.length) {
    timeline.add(fresh);
    if (fresh.some((transition) => transition.service === details.host)) details.showTransitions();
  }
}

// Buttons under way, by host.

const busy = new Map();
const busyVerbs = (host) => busy.get(host) ?? new Set();

function showBusy(host, verb, isBusy) {
  if (host === null) return setAttribute(byId("reload"), "disabled", isBusy);
  const verbs = busyVerbs(host);
  if (isBusy) verbs.add(verb);
  else verbs.delete(verb);
  busy.set(host, verbs);
  table.busy.set(host, verbs.size);
  due.hosts.add(host);
  showSoon();
}

// What is shown of one service is named by the address: #whisper.example.com.

function shownHost() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return "";
  }
}

function openDetails(host) {
  location.hash = encodeURIComponent(host);
}

function closeDetails() {
  const host = details.host;
  history.pushState(null, "", location.pathname + location.search);
  showPlace();
  table.focus(host);
}

function showPlace() {
  const host = shownHost();
  document.body.classList.toggle("with-details", host !== "");
  if (host) details.open(host);
  else details.close();
  if (host) details.show(busyVerbs(host));
  table.mark(host);
  coverRest();
}

// Where the details lie over the rest, nothing below them is reached by keys.
const isNarrow = matchMedia("(max-width: 1099px)");

function coverRest() {
  const isCovered = details.host !== null && isNarrow.matches;
  for (const part of document.querySelectorAll(".top, .summary, .views, .services")) part.inert = isCovered;
}

// Asking.

let historyDue = 0;

async function askServices() {
  const askedAt = performance.now();
  fleet.takeAll(await api.services(), askedAt);
  setHidden(byId("loading"), true);
}

const askUsage = async () => fleet.takeUsage(await api.usage());
const askHistory = async () => fleet.takeHistory(await api.history(HISTORY_DAYS));

function askHistorySoon() {
  if (historyDue) return;
  historyDue = setTimeout(() => {
    historyDue = 0;
    quietly(askHistory);
  }, 2000);
}

// What fails is asked again at the next turn; a lost connection is the stream's to tell. One at a
// time of each: calls wait while the operator is asked to log in.
const underWay = new Set();

async function quietly(ask) {
  if (document.hidden || underWay.has(ask)) return;
  underWay.add(ask);
  try {
    await ask();
  } catch {
    // as above
  } finally {
    underWay.delete(ask);
  }
}

function every(seconds, ask) {
  setInterval(() => quietly(ask), seconds * 1000);
}

async function mayRetry() {
  const standing = await api.standing().catch(() => null);
  if (standing?.token_needed && !standing.open) await login.ask("The session has ended. Log in again.");
}

const live = new Live(
  {
    opened() {
      showConnection("live", "live");
      quietly(askServices);
      quietly(askUsage);
      setTimeout(() => quietly(askUsage), USAGE_SECOND_SECONDS * 1000);
      askHistorySoon();
    },
    lost: () => showConnection("lost", "connection lost, trying again"),
    service: (answer) => fleet.take(answer),
    removed: (host) => fleet.remove(host),
    transition(transition, id) {
      if (!fleet.takeTransition(transition, id)) return;
      due.transitions.push(transition);
      if (["ready", "failed", "stopped"].includes(transition.to)) askHistorySoon();
      showSoon();
    },
    progress({ service: host, progress }) {
      const known = fleet.get(host);
      if (known !== null) fleet.note(host, { progress });
    },
  },
  mayRetry,
);

function showConnection(kind, text) {
  byId("connection").dataset.kind = kind;
  document.body.classList.toggle("is-lost", kind === "lost");
  setText(byId("connection-word"), text);
}

// The page itself.

function wire() {
  isNarrow.addEventListener("change", coverRest);
  addEventListener("hashchange", showPlace);
  addEventListener("popstate", showPlace);
  addEventListener("keydown", (event) => {
    const isElsewhere = event.target.closest("dialog, input, select, textarea") !== null;
    if (event.key === "Escape" && details.host !== null && !isElsewhere) closeDetails();
    if (event.key === "/" && !isElsewhere) {
      event.preventDefault();
      byId("services-filter").focus();
    }
  });
  byId("reload").addEventListener("click", async () => {
    if (await commands.reload()) quietly(askServices);
  });
  byId("log-out").addEventListener("click", logOut);
  for (const button of document.querySelectorAll("[data-view]")) {
    button.addEventListener("click", () => showView(button.dataset.view));
  }
  for (const button of document.querySelectorAll("dialog [data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  setInterval(() => {
    if (document.hidden) return;
    table.tick();
    details.tick();
  }, 1000);
}

// Where there is no room for both, the services or the timeline.
function showView(view) {
  document.body.dataset.shown = view;
  for (const button of document.querySelectorAll("[data-view]")) {
    setAttribute(button, "aria-pressed", String(button.dataset.view === view));
  }
}

async function logOut() {
  live.close();
  await api.logOut().catch(() => null);
  location.reload(); // nothing of what was shown stays in the page
}

async function begin() {
  wire();
  showView("services");
  showPlace();
  setText(byId("place"), location.host);
  const standing = await api.standing().catch(() => null);
  setHidden(byId("log-out"), !standing?.token_needed);
  if (standing?.token_needed && !standing.open) await login.ask();
  live.connect();
  every(USAGE_SECONDS, askUsage);
  every(HISTORY_SECONDS, askHistory);
  every(SERVICES_SECONDS, askServices);
}

begin();
