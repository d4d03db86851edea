// Reads the docs portal, or a service's own docs page, as people do, in a real browser.
//
// Takes {first, url, look, types, show, presses, wait, execute, then, screenshot, full}; `look` are options
// of the browser's context, `first` an address to visit before, `types` what is searched for, `show` a host to click in the list,
// `presses` a button, `execute` {operation, file, key, login, scheme, meanwhile}: what to fill in,
// and a screenshot during the wait; `then` {show, execute} goes on with another service. Tells what the page shows then, every banner that it showed meanwhile, what it
// asked for, what its console complained of, and what axe finds in the parts that are ours.

import { browse, violations, wish } from "./browse.mjs";

await browse(async (open) => {
  const page = await open(wish.look);
  await page.addInitScript(() => {
    globalThis.banners = [];
    addEventListener("DOMContentLoaded", () => {
      const told = document.getElementById("banner");
      const note = () => globalThis.banners.push(told?.innerText.replace(/\s+/g, " ").trim());
      new MutationObserver(note).observe(told ?? document, { subtree: true, childList: true, characterData: true, attributes: true });
    });
  });
  const dialogs = [];
  page.on("dialog", async (dialog) => {
    dialogs.push(dialog.message());
    await dialog.dismiss();
  });
  if (wish.first) {
    await page.goto(wish.first);
  }
  await page.goto(wish.url);
  await page.locator("#head").waitFor();
  if (wish.types) {
    await page.locator("#find").fill(wish.types);
  }
  if (wish.show) {
    await page.locator(`#list li[data-host="${wish.show}"] a`).click();
  }
  if (wish.presses) {
    await page.getByRole("button", { name: wish.presses }).click();
  }
  await page.locator(wish.wait ?? ".swagger-ui .opblock").first().waitFor();
  const answer = wish.execute ? await execute(page, wish.execute) : {};
  if (wish.then) {
    await page.locator(`#list li[data-host="${wish.then.show}"] a`).click();
    await page.locator("#name", { hasText: wish.then.show }).waitFor();
    answer.then = await execute(page, wish.then.execute);
  }
  if (wish.screenshot) {
    await page.screenshot({ path: wish.screenshot, fullPage: wish.full ?? false });
  }
  return {
    ...answer,
    title: await page.title(),
    banner: await page.locator("#told").innerText(),
    banners: [...new Set(await page.evaluate(() => globalThis.banners))],
    listed: await page.locator("#list li").evaluateAll((items) => items.map((item) => item.dataset.host)),
    text: await page.locator("#swagger").innerText(),
    width: await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]),
    violations: await violations(page, { exclude: [[".swagger-ui"]] }),
    asked: page.asked,
    complaints: page.complaints,
    dialogs,
  };
});

async function execute(page, asked) {
  if (asked.key || asked.login) {
    await page.getByRole("button", { name: "Authorize" }).first().click();
    const scheme = page.locator(".auth-container", { hasText: asked.scheme });
    for (const [index, value] of [asked.key ?? asked.login].flat().entries()) {
      await scheme.locator("input").nth(index).fill(value);
    }
    await scheme.locator(".auth-btn-wrapper .authorize").click();
    await page.locator(".auth-btn-wrapper .btn-done").first().click();
  }
  const operation = page.locator(".opblock", { hasText: asked.operation }).first();
  await operation.locator(".opblock-summary-control").click();
  if (asked.file) {
    await operation.locator('input[type="file"]').setInputFiles(asked.file);
  }
  await operation.getByRole("button", { name: "Execute" }).click();
  if (asked.meanwhile) {
    await page.locator("#clock:visible").waitFor();
    await page.screenshot({ path: asked.meanwhile });
  }
  const live = operation.locator(".live-responses-table tbody tr.response");
  await live.waitFor();
  // The sentence about the outcome follows the answer by a turn of the page's loop.
  await page.locator("#clock").waitFor({ state: "hidden" });
  return {
    status: (await live.locator(".response-col_status").innerText()).split("\n")[0],
    body: await live.locator(".response-col_description").innerText(),
  };
}
