// Visits a page as a reader does, and tells everything that it showed on the way.
//
// Takes {url, options, until, seconds, shots, axe, block, absent, unseen}: Playwright's context options; the text at
// which the way ends; how long that may take; where to put a screenshot of a situation, by its name;
// whether axe looks, at each situation that is in shots; addresses that do not come
// through, and addresses that somebody else answers for; whether it is a tab behind another one.

import { browse, violations, wish } from "./browse.mjs";

// What the page shows now; null between two pages.
async function look(page) {
  try {
    return await page.evaluate(() => {
      const text = (key) => document.querySelector(`[data-autostart="${key}"]:not([hidden])`)?.textContent ?? "";
      const bar = document.querySelector('[data-autostart="bar"]');
      return {
        situation: document.documentElement.dataset.situation ?? null,
        title: document.title,
        language: document.documentElement.lang,
        heading: text("heading"),
        reason: text("reason"),
        retry: text("retry"),
        elapsed: text("elapsed"),
        usual: text("usual"),
        bar: bar?.checkVisibility() && bar.hasAttribute("value") ? bar.value : null,
        overflows: document.documentElement.scrollWidth > innerWidth,
        text: document.body.innerText,
      };
    });
  } catch {
    return null;
  }
}

await browse(async (open) => {
  const page = await open(wish.options ?? {});
  const documents = [];
  page.on("response", (answer) => {
    if (answer.request().isNavigationRequest()) documents.push([answer.status(), answer.url()]);
  });
  if (wish.block) await page.route(wish.block, (route) => route.abort());
  if (wish.absent) await page.route(wish.absent, (route) => route.fulfill({ status: 404, body: "not here" }));
  if (wish.unseen) await page.addInitScript(() => Object.defineProperty(document, "hidden", { value: true }));
  const began = Date.now();
  await page.goto(wish.url, { waitUntil: "domcontentloaded" });
  const appearedSeconds = (Date.now() - began) / 1000;
  const seen = [];
  const broken = [];
  const shots = { ...wish.shots };
  let now = null;
  while (Date.now() < began + 1000 * wish.seconds) {
    now = await look(page);
    if (now?.text.includes(wish.until)) break;
    if (now?.situation) {
      const { text, ...kept } = now;
      seen.push({ at: (Date.now() - began) / 1000, ...kept });
      const shot = shots[now.situation];
      if (shot && Date.now() > began + 1400) {
        delete shots[now.situation];
        await page.screenshot({ path: shot });
        if (wish.axe) broken.push(...(await violations(page)));
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const ended = { url: page.url(), text: now?.text ?? "" };
  return { appearedSeconds, documents, seen, broken, ended, asked: page.asked, complaints: page.complaints };
});
