// The dashboard as an operator uses it, in a real browser.
//
// Takes {scene, url, …}; each scene tells what the page showed. Requests of clients are sent from
// here, to `proxy`, while the page is open: {port, host}.

import fs from "node:fs";
import http from "node:http";
import { browse, violations, wish } from "./browse.mjs";

const DESKTOP = { viewport: { width: 1360, height: 860 } };
const PHONE = { viewport: { width: 375, height: 812 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };

// A client's request; `ended` tells its status, `leave()` ends it early.
function ask(path, { host = wish.host, method = "GET" } = {}) {
  const headers = { Host: host };
  const request = http.request({ host: "127.0.0.1", port: wish.port, path, method, headers });
  const ended = new Promise((resolve) => {
    request.on("response", (response) => {
      response.on("error", () => resolve("cut"));
      response.on("end", () => resolve(response.statusCode));
      response.resume();
    });
    request.on("error", () => resolve("cut"));
  });
  request.end();
  return { ended, leave: () => request.destroy() };
}

const row = (page, host = wish.host) => page.locator(`#services-body tr[data-host="${host}"]`);
const mark = (page, state, host) => row(page, host).locator(".mark", { hasText: new RegExp(`^${state}$`) });
const button = (page, verb) => page.locator(`#details-buttons [data-verb="${verb}"]`);

async function show(open, options = DESKTOP, place = "") {
  const page = await open(options);
  await page.goto(wish.url + place);
  return page;
}

// Until something is so, as `expect.poll` would.
async function until(look, wanted, seconds = 15) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const seen = await look();
    if (wanted(seen)) return seen;
    if (Date.now() > end) throw new Error(`not within ${seconds} s; last: ${JSON.stringify(seen)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

// What Chromium itself writes about a status that says no is no complaint of the page.
const complaints = (page) => page.complaints.filter((text) => !text.startsWith("Failed to load resource"));
const elsewhere = (page) => page.asked.filter((url) => !url.startsWith(wish.url) && !url.startsWith("data:"));
const told = (page) => ({ complaints: complaints(page), elsewhere: elsewhere(page) });

// Notes each text that the mark of a row shows, in the page itself: nothing is missed.
async function watch(page, host = wish.host) {
  await row(page, host).waitFor();
  await page.evaluate((name) => {
    const element = document.querySelector(`#services-body tr[data-host="${name}"] .mark`);
    globalThis.seen = [element.textContent];
    const note = () => {
      if (element.textContent !== globalThis.seen.at(-1)) globalThis.seen.push(element.textContent);
    };
    new MutationObserver(note).observe(element, { childList: true, subtree: true, characterData: true });
  }, host);
}

const seen = (page) => page.evaluate(() => globalThis.seen);

const scenes = {
  // A request to a stopped service, and the idle stop after it.
  async live(open) {
    const page = await show(open);
    await watch(page);
    const before = await page.locator("#timeline-list .entry").count();
    const status = await ask("/hello").ended;
    await mark(page, "ready").waitFor();
    const idle = row(page).locator(".cell-idle > span").first();
    const first = await idle.textContent();
    const second = await until(() => idle.textContent(), (text) => text !== first);
    await mark(page, "stopped").waitFor();
    const entries = await page.locator("#timeline-list .entry").allInnerTexts();
    await until(() => row(page).locator(".cell-starts .below").textContent(), (text) => text !== "");
    const starts = await row(page).locator(".cell-starts svg").getAttribute("aria-label");
    return { status, seen: await seen(page), first, second, before, entries, starts, ...told(page) };
  },

  // Every button, in an order in which each has something to do.
  async buttons(open) {
    const page = await show(open, DESKTOP, `#${wish.host}`);
    const done = {};
    await watch(page);
    await button(page, "start").click();
    await mark(page, "ready").waitFor();
    await row(page).locator(".act").click();
    await mark(page, "stopped").waitFor();
    done.started_and_stopped = await seen(page);

    const held = ask("/slow?seconds=60");
    await mark(page, "ready").waitFor();
    const lease = page.locator("#details-leases li", { hasText: "GET /slow" });
    await lease.waitFor();
    done.lease = await lease.locator("code").textContent();
    await until(() => lease.locator(".age").textContent(), (text) => text >= "1 s");
    await button(page, "stop").click();
    const notice = page.locator(".notice-refused");
    await notice.waitFor();
    done.refused = await notice.innerText();
    done.rules = await violations(page);
    await notice.getByRole("button", { name: "Drain: wait for them" }).click();
    await mark(page, "stopping").waitFor();
    done.draining = await row(page).locator(".cell-state .below").textContent();
    await button(page, "force").click();
    done.cuts = await page.locator("#force").innerText();
    done.rules.push(...(await violations(page)));
    await page.locator("#force").getByRole("button", { name: "Force" }).click();
    done.cut = await held.ended;
    await mark(page, "stopped").waitFor();

    await button(page, "hold").click();
    await mark(page, "held").waitFor();
    done.while_held = await ask("/hello").ended;
    await button(page, "start").click();
    await mark(page, "ready").waitFor();

    await button(page, "keep").click();
    await page.locator("#keep-for").fill("soon");
    await page.keyboard.press("Enter");
    done.rules.push(...(await violations(page)));
    done.bad_duration = await until(() => page.locator("#keep-problem").textContent(), Boolean);
    await page.getByRole("button", { name: "1h", exact: true }).click();
    await page.locator("#keep").getByRole("button", { name: "Keep", exact: true }).click();
    const kept = row(page).locator(".cell-idle .below");
    done.kept = await until(() => kept.textContent(), (text) => text === "kept");

    await watch(page);
    await button(page, "restart").click();
    await until(() => seen(page), (states) => states.length > 2 && states.at(-1) === "ready");
    done.restarted = (await seen(page))[1];
    await button(page, "prepare").click();
    const facts = page.locator("#details-facts");
    await until(() => facts.innerText(), (text) => /Prepared\s+done/.test(text));
    await page.locator("#reload").click();
    await page.locator(".notice", { hasText: "The map was read again" }).waitFor();
    return { ...done, ...told(page) };
  },

  // What the service prints, as it prints it.
  async log(open) {
    const page = await show(open, DESKTOP, `#${wish.host}`);
    await ask("/print?line=before").ended;
    await button(page, "logs").click();
    const lines = page.locator("#log-lines li");
    await lines.filter({ hasText: /^before$/ }).waitFor();
    await ask("/print?line=while-open").ended;
    await lines.filter({ hasText: "while-open" }).waitFor();
    await page.locator("#log-pause").click();
    await ask("/print?line=while-paused").ended;
    const count = page.locator("#log-count");
    const paused = await until(() => count.textContent(), (text) => text.includes("1 new"));
    const unseen = await lines.filter({ hasText: "while-paused" }).count();
    await page.locator("#log-pause").click();
    await lines.filter({ hasText: "while-paused" }).waitFor();
    await page.locator("#log-filter").fill("WHILE");
    const filtered = await until(() => lines.allInnerTexts(), (texts) => texts.length === 2);
    await page.screenshot({ path: wish.screenshot });
    const rules = await violations(page);
    await page.locator("#log-close").click();
    await until(() => page.locator("#log").isVisible(), (visible) => !visible);
    return { paused, unseen, filtered, rules, ...told(page) };
  },

  // A start that fails: what it said, its last lines, the next try.
  async failure(open) {
    const page = await show(open, DESKTOP, `#${wish.host}`);
    await button(page, "start").click();
    await mark(page, "failed").waitFor();
    await page.locator("#failure-log pre", { hasText: wish.line }).waitFor();
    const text = await page.locator("#failure").innerText();
    const retry = await until(() => page.locator("#failure-retry").textContent(), Boolean);
    await page.screenshot({ path: wish.screenshot });
    return { text, retry, title: await page.title(), rules: await violations(page), ...told(page) };
  },

  // A hundred services: how long until they are there, filter, sort.
  async many(open) {
    const page = await open(DESKTOP);
    const began = Date.now();
    await page.goto(wish.url);
    await until(() => page.locator("#services-body tr").count(), (count) => count === wish.count);
    const seconds = (Date.now() - began) / 1000;
    const count = page.locator("#services-count");
    await page.locator("#services-filter").fill(wish.filter);
    const filtered = await until(() => count.textContent(), (text) => text.includes(" of "));
    await page.locator("#services-filter").fill("");
    await page.locator('[data-sort="name"] button').click();
    await page.locator('[data-sort="name"] button').click();
    const last = await page.locator("#services-body tr").first().getAttribute("data-host");
    await watch(page);
    await ask("/hello").ended;
    await mark(page, "ready").waitFor();
    await page.locator('.tile[data-state="ready"]').click();
    const ready = await until(() => count.textContent(), (text) => text.startsWith("1 of"));
    await page.locator('.tile[data-state="ready"]').click();
    await page.screenshot({ path: wish.screenshot });
    return { seconds, filtered, last, ready, seen: await seen(page), ...told(page) };
  },

  // All change at once, again and again: how long the page is busy for each round, and its frames.
  async crowd(open) {
    const page = await show(open, wish.phone ? PHONE : DESKTOP);
    await until(() => page.locator("#services-body tr").count(), (count) => count === wish.count);
    await page.evaluate(() => {
      globalThis.long = [];
      new PerformanceObserver((list) => {
        for (const task of list.getEntries()) globalThis.long.push(task.duration);
      }).observe({ type: "longtask" });
      globalThis.gaps = [];
      let last = performance.now();
      const frame = (now) => {
        globalThis.gaps.push(now - last);
        last = now;
        requestAnimationFrame(frame);
      };
      requestAnimationFrame(frame);
    });
    fs.writeFileSync(wish.signal, "");
    const marks = page.locator("#services-body .mark");
    await until(
      () => marks.evaluateAll((all) => all.filter((each) => each.textContent === "failed").length),
      (failed) => failed === wish.count,
      30,
    );
    const [long, gaps] = await page.evaluate(() => [globalThis.long, globalThis.gaps]);
    gaps.sort((one, other) => one - other);
    return { long, p95: gaps[Math.floor(gaps.length * 0.95)], frames: gaps.length, ...told(page) };
  },

  // With a token: nothing without it, the page as it was after it, out again.
  async login(open) {
    const page = await show(open, DESKTOP, `#${wish.host}`);
    const field = page.locator("#login-token");
    await field.waitFor();
    await page.screenshot({ path: wish.screenshot });
    const rules = await violations(page);
    const before = await page.locator("#services-body tr").count();
    await field.fill("wrong");
    await page.keyboard.press("Enter");
    const problem = await until(() => page.locator("#login-problem").textContent(), Boolean);
    await field.fill(wish.token);
    await page.getByRole("button", { name: "Log in" }).click();
    await mark(page, "stopped").waitFor();
    const opened = await page.locator("#details-name").textContent();
    const cookies = await page.context().cookies();

    // The session ends behind the page's back: the next button asks for the token, then is done.
    await page.evaluate(() => (globalThis.same = true));
    await page.context().clearCookies();
    await button(page, "start").click();
    await field.waitFor();
    await field.fill(wish.token);
    await page.keyboard.press("Enter");
    await mark(page, "ready").waitFor();
    const same = await page.evaluate(() => globalThis.same);

    const [session] = await page.context().cookies();
    await page.locator("#log-out").click();
    await field.waitFor();
    const after = await page.locator("#services-body tr").count();
    const ended = await page.request.get(`${wish.url}api/services`, {
      headers: { Cookie: `${session.name}=${session.value}` },
    });
    return { before, problem, opened, cookies, same, after, ended: ended.status(), rules, ...told(page) };
  },

  // autostart goes away and comes back while the page is open; the test does both.
  async restart(open) {
    const page = await show(open);
    await mark(page, "stopped").waitFor();
    fs.writeFileSync(wish.signal, "");
    const word = page.locator("#connection-word");
    await until(() => word.textContent(), (text) => text === "connection lost, trying again", 30);
    await page.screenshot({ path: wish.screenshot });
    await until(() => word.textContent(), (text) => text === "live", 30);
    await mark(page, "ready").waitFor();
    const entries = await page.locator("#timeline-list .entry").count();
    return { entries, ...told(page) };
  },

  // Names, paths, lines and failures of somebody who would like to run a script here.
  async hostile(open) {
    const page = await show(open, DESKTOP, `#${encodeURIComponent(wish.host)}`);
    await page.evaluate(() => (globalThis.harmed = false));
    await page.locator("#details-leases li").first().waitFor();
    const name = await row(page).locator(".name").textContent();
    await page.locator("#failure-log").waitFor();
    await button(page, "logs").click();
    await page.locator("#log-lines li").first().waitFor();
    const line = await page.locator("#log-lines li").first().textContent();
    await page.keyboard.press("Escape");
    await button(page, "stop").click();
    await page.locator(".notice-refused").waitFor();
    const made = await page.locator("img:not([src='dashboard/icon.svg']), script:not([src]), iframe, b").count();
    const lease = await page.locator("#details-leases code").first().textContent();
    const harmed = await page.evaluate(() => globalThis.harmed || globalThis.alerted === true);
    return { name, line, lease, made, harmed, ...told(page) };
  },

  // How it looks, and who can use it: light and dark, desk and phone.
  async looks(open) {
    const shown = {};
    for (const colorScheme of ["light", "dark"]) {
      for (const [kind, options] of [["desk", DESKTOP], ["phone", PHONE]]) {
        const page = await show(open, { ...options, colorScheme, reducedMotion: "reduce" });
        await row(page).locator(".cell-memory .below", { hasText: "CPU" }).waitFor({ state: "attached" });
        await row(page).locator(".cell-asleep", { hasText: "%" }).waitFor({ state: "attached" });
        for (const part of ["fleet", "service"]) {
          if (part === "service") await row(page).locator(".name").click();
          if (part === "service") await page.locator("#details-days svg").waitFor();
          const name = `dashboard-${part}-${kind}-${colorScheme}`;
          await page.screenshot({ path: `${wish.pictures}/${name}.png` });
          const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
          shown[name] = { wide, rules: await violations(page), ...told(page) };
        }
        await page.context().close();
      }
    }
    return shown;
  },

  // A page on another port of the same host: to a browser the same site, so it sends our cookie.
  async neighbour(open) {
    const page = await show(open);
    await page.locator("#login-token").fill(wish.token);
    await page.keyboard.press("Enter");
    await mark(page, "stopped").waitFor();
    const start = `${wish.url}api/services/${wish.host}/start`;
    const other = await page.context().newPage();
    const server = http.createServer((_, answer) => answer.end("a service of this host"));
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    await other.goto(`http://127.0.0.1:${server.address().port}/`);
    const ask = (url) => fetch(url, { method: "POST", mode: "no-cors", credentials: "include" }).then(String, () => "refused");
    const sent = await other.evaluate(ask, start);
    const read = await other.evaluate(
      (url) => fetch(url, { credentials: "include" }).then((answer) => answer.text(), () => "refused"),
      `${wish.url}api/services`,
    );
    const [posted] = await Promise.all([
      other.waitForResponse(start),
      other.evaluate((url) => {
        const form = Object.assign(document.createElement("form"), { method: "POST", action: url });
        document.body.append(form);
        form.submit();
      }, start),
    ]);
    const cookie = (await posted.request().allHeaders()).cookie ?? "";
    await page.reload();
    await mark(page, "stopped").waitFor();
    server.close();
    return { sent, read, posted: posted.status(), cookie: cookie.startsWith("autostart-"), ...told(page) };
  },

  // With keys alone.
  async keys(open) {
    const page = await show(open);
    await row(page).waitFor();
    await page.keyboard.press("/");
    await page.keyboard.type(wish.host);
    await page.keyboard.press("Tab");
    const focused = () => page.evaluate(() => document.activeElement.textContent.trim() || document.activeElement.id);
    for (let presses = 0; presses < 20 && (await focused()) !== wish.name; presses += 1) {
      await page.keyboard.press("Tab");
    }
    await page.keyboard.press("Enter");
    await page.locator("#details-name", { hasText: wish.name }).waitFor();
    const place = new URL(page.url()).hash;
    const opened = await focused();
    await page.keyboard.press("Escape");
    await until(() => page.locator("#details").isVisible(), (visible) => !visible);
    return { place, opened, closed: await focused(), ...told(page) };
  },

  // The drawings of the last days, in words and numbers.
  async history(open) {
    const page = await show(open, DESKTOP, `#${wish.host}`);
    const drawing = page.locator("#details-starts svg");
    await drawing.waitFor();
    await page.locator("#details-starts summary").click();
    const table = page.locator("#details-starts table");
    await page.locator("#details-days").scrollIntoViewIfNeeded();
    await page.screenshot({ path: wish.screenshot });
    return {
      starts: await drawing.getAttribute("aria-label"),
      head: await table.locator("th").allInnerTexts(),
      outcomes: await table.locator("tbody td:nth-child(2)").allInnerTexts(),
      days: await page.locator("#details-days svg").getAttribute("aria-label"),
      words: await page.locator("p:has(#details-asleep)").innerText(),
      sum: await page.locator("#sum-saved").textContent(),
      rules: await violations(page),
      ...told(page),
    };
  },

  // Below the prefix of a reverse proxy, over https.
  async prefix(open) {
    const page = await show(open, { ...DESKTOP, ignoreHTTPSErrors: true });
    await page.locator("#login-token").fill(wish.token);
    await page.keyboard.press("Enter");
    await mark(page, "stopped").waitFor();
    await page.locator("#connection-word", { hasText: "live" }).waitFor();
    await row(page).locator(".act").click();
    await mark(page, "ready").waitFor();
    const [{ secure, path }] = await page.context().cookies();
    return { secure, path, ...told(page) };
  },
};

// A scene that fails says what its pages showed then.
await browse(async (open) => {
  const pages = [];
  const opened = async (options) => pages[pages.push(await open(options)) - 1];
  try {
    return await scenes[wish.scene](opened);
  } catch (error) {
    for (const page of pages) {
      const text = await page.locator("body").innerText().catch(() => "");
      console.error(page.url(), page.complaints, text.slice(0, 1000));
    }
    throw error;
  }
});
