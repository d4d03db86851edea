// A screenshot of what a terminal showed: {svg, picture}.

import { browse, wish } from "./browse.mjs";

await browse(async (open) => {
  const page = await open({ viewport: { width: 1240, height: 600 } });
  await page.setContent(`<body style="margin: 0">${wish.svg}</body>`);
  await page.locator("svg").first().screenshot({ path: wish.picture });
  return {};
});
