// Executes an operation of a Swagger page as a reader does, in a real browser.
//
// Takes {url, key, operation, fields, file, body, screenshot}; tells what the page then shows, and
// every address that it asked for.

import { browse, wish } from "./browse.mjs";

await browse(async (open) => {
  const page = await open({ viewport: { width: 1280, height: 1600 } });
  await page.goto(wish.url);
  if (wish.key) {
    await page.getByRole("button", { name: "Authorize" }).click();
    await page.locator(".auth-container input").fill(wish.key);
    await page.locator(".auth-btn-wrapper .authorize").click();
    await page.locator(".auth-btn-wrapper .btn-done").click();
  }
  const operation = page.locator(".opblock", { hasText: wish.operation }).first();
  await operation.locator(".opblock-summary").click();
  if (wish.file) {
    await operation.locator('input[type="file"]').setInputFiles(wish.file);
  }
  if (wish.body) {
    await operation.locator("textarea.body-param__text").fill(wish.body);
  }
  for (const [name, value] of Object.entries(wish.fields ?? {})) {
    const row = operation.locator(`tr[data-property-name="${name}"]`);
    const choice = row.locator("select");
    await ((await choice.count()) ? choice.selectOption(value) : row.locator('input[type="text"]').fill(value));
  }
  await operation.getByRole("button", { name: "Execute" }).click();
  const live = operation.locator(".live-responses-table tbody tr.response");
  await live.waitFor();
  const status = await live.locator(".response-col_status").innerText();
  const body = await live.locator(".response-col_description").innerText();
  await page.screenshot({ path: wish.screenshot, fullPage: true });
  return { status, body, asked: page.asked, complaints: page.complaints };
});
