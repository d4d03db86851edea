// Follows the service of this host, and opens what was asked for when it is ready. Fills every
// element that has a data-autostart attribute, in our page and in an operator's own.
(() => {
  const { status, words } = JSON.parse(document.getElementById("autostart").textContent);
  const now = () => performance.now() / 1000;
  // What was heard last, and when; when the service is woken again.
  let known, heardAt, wakeAt;
  let stream, streamedAt, streams;
  let asking, leaving;

  const each = (key, change) => document.querySelectorAll(`[data-autostart="${key}"]`).forEach(change);
  const put = (key, text) => each(key, (element) => {
    if (element.textContent !== text) element.textContent = text;
    element.hidden = !text;
  });
  const duration = (seconds) => {
    const whole = Math.max(0, Math.round(seconds));
    return whole < 60 ? `${whole}\u00a0s` : `${Math.floor(whole / 60)}\u00a0min\u00a0${whole % 60}\u00a0s`;
  };
  const situation = ({ state, phase, failure }) => {
    if (failure) return { held: "held", "shutting-down": "restarting" }[failure.code] ?? "failed";
    return state === "starting" ? phase : state;
  };

  function show(told) {
    [known, heardAt] = [told, now()];
    const word = situation(known);
    document.documentElement.dataset.situation = word;
    put("title", `${words.headings[word]} · ${known.name}`);
    put("heading", words.headings[word]);
    put("text", words.texts[word]);
    put("reason", word === "failed" ? known.failure.message : "");
    document.querySelectorAll("[data-step]").forEach((step) => {
      if (step.dataset.step === word) step.setAttribute("aria-current", "step");
      else step.removeAttribute("aria-current");
    });
    // Where nothing goes on by itself it is asked for again, as by somebody who reloads.
    const rests = ["failed", "stopped", "restarting"].includes(word);
    wakeAt = rests ? heardAt + (known.retry_in_seconds ?? 5) : Infinity;
    tick();
    if (word === "ready") leave(0);
  }

  function tick() {
    const past = now() - heardAt;
    const elapsed = (known.elapsed_seconds ?? 0) + past;
    const usual = ["starting", "loading"].includes(situation(known)) ? known.usual_start_seconds : 0;
    put("elapsed", known.elapsed_seconds === null ? "" : duration(elapsed));
    put("usual", usual ? words.usual.replace("{}", duration(usual)) : "");
    put("retry", wakeAt < Infinity ? words.retry.replace("{}", duration(wakeAt - now())) : "");
    each("bar", (bar) => {
      // Straight up to the usual time, then ever slower; without one it only moves.
      if (usual) bar.value = elapsed < usual ? (90 * elapsed) / usual : 100 - (10 * usual) / elapsed;
      else bar.removeAttribute("value");
    });
    if (asking || leaving) return;
    if (now() >= wakeAt && !document.hidden) {
      wakeAt = now() + 5;
      ask("wake", "POST");
    } else if (past > (streams ? 20 : 2)) {
      // The stream is silent, or none comes through: what stands between us may keep it back.
      if (stream?.readyState === EventSource.CLOSED && now() > streamedAt + 10) follow();
      ask("status", "GET");
    }
  }

  async function ask(path, method) {
    asking = true;
    try {
      const answer = await fetch(`/.autostart/${path}`, { method, cache: "no-store" });
      const told = await answer.json().catch(() => ({}));
      if (told.state) show(told);
      // Refused; the status says why.
      else if (path === "wake") await ask("status", "GET");
      // Nobody gets in any more, or this path does not lead to autostart.
      else if (answer.status < 500) leave(5);
    } catch {
      // The server is away. Its error page would be the end of the way: stay and ask again.
    }
    asking = false;
  }

  function leave(seconds) {
    if (leaving) return;
    leaving = true;
    // Who comes back within a minute found it gone again, and takes more time each time.
    let times = 1;
    try {
      const [before, at] = JSON.parse(sessionStorage.getItem("autostart") ?? "[0,0]");
      times = Date.now() < at + 60000 ? before : 0;
      sessionStorage.setItem("autostart", JSON.stringify([times + 1, Date.now()]));
    } catch {
      // It may be forbidden.
    }
    const delay = times ? Math.min(2 ** (times - 1), 30) : 0;
    setTimeout(() => location.reload(), 1000 * Math.max(seconds, delay));
  }

  // A tab that nobody sees asks instead: over plain HTTP a browser has six connections to a host.
  function follow() {
    streams = false;
    stream?.close();
    if (document.hidden) return;
    streamedAt = now();
    stream = new EventSource("/.autostart/events");
    stream.addEventListener("status", (event) => {
      streams = true;
      show(JSON.parse(event.data));
    });
    stream.onerror = () => (streams = false);
  }

  follow();
  show(status);
  setInterval(tick, 1000);
  document.addEventListener("visibilitychange", follow);
})();
