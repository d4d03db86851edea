// What every script that drives a browser needs: a wish from stdin, a page, accessibility, an answer.

import fs from "node:fs";
import axe from "axe-core";
import { chromium } from "playwright-core";

const QUIET = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const SECONDS_MAX = 20;

export const wish = JSON.parse(fs.readFileSync(0, "utf-8"));

// Runs `visit(open)` and prints what it returns as JSON. `open(options)` gives a page of its own
// context; Playwright's context options say viewport, colorScheme, locale, javaScriptEnabled and
// ignoreHTTPSErrors. Pages remember what they asked for and what their console complained about.
export async function browse(visit) {
  const browser = await chromium.launch({ executablePath: wish.browser, args: [...QUIET, ...(wish.args ?? [])] });
  try {
    const open = async (options = {}) => {
      const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
      const page = await context.newPage();
      page.setDefaultTimeout(SECONDS_MAX * 1000);
      page.asked = [];
      page.complaints = [];
      page.on("request", (request) => page.asked.push(request.url()));
      page.on("console", (line) => line.type() === "error" && page.complaints.push(line.text()));
      page.on("pageerror", (error) => page.complaints.push(String(error)));
      return page;
    };
    process.stdout.write(JSON.stringify(await visit(open)));
  } finally {
    await browser.close();
  }
}

// The accessibility rules that the page breaks, those that axe calls serious or critical. Needs a
// page whose Content-Security-Policy lets the browser's own side evaluate; Playwright's does. `scope`
// is axe's context: {exclude: [[selector]]} leaves out what others have made.
export async function violations(page, scope = {}) {
  await page.evaluate(axe.source);
  const found = await page.evaluate((context) => globalThis.axe.run({ include: [["html"]], ...context }), scope);
  return found.violations
    .filter((each) => ["serious", "critical"].includes(each.impact))
    .map((each) => `${each.id}: ${each.nodes.map((node) => node.target.join(" ")).join(", ")}`);
}
