// Executes an operation of a Swagger page as a reader does, in a real browser.
//
// Reads {url, operation, fields, file, body, screenshot} from stdin; prints what the page then shows,
// and every address that it asked for.

import fs from "node:fs";
import { chromium } from "playwright-core";

const wish = JSON.parse(fs.readFileSync(0, "utf-8"));
const browser = await chromium.launch({
  executablePath: wish.browser,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"],
});
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 1600 } });
  page.setDefaultTimeout(20_000);
  const asked = [];
  const complaints = [];
  page.on("request", (request) => asked.push(request.url()));
  page.on("console", (line) => line.type() === "error" && complaints.push(line.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
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
  process.stdout.write(JSON.stringify({ status, body, asked, complaints }));
} finally {
  await browser.close();
}
