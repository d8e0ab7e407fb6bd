/**
 * How long a report of simulated engines takes, and whether it can be read: six modes under an hour
 * of traffic each in virtual time, and the page in a headless browser at two widths.
 *
 * Hypotheses: an hour of one mode takes less than a hundredth of it, and at 1,120 and 375 pixels no
 * figure of the first table is off the screen. Exit code 1 where one is refuted.
 *
 *   npm run bench:report-page        prints the figures, writes bench/results/report-page.json
 *
 * SCREENSHOTS=FOLDER keeps what was seen.
 */

import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { chromium } from "playwright-core";
import { BROWSER_ARGS, BROWSERS, browserPath, OVERFLOW, UNSEEN } from "./lib/report-page.ts";

const WIDTHS = [1_120, 375];
const LOAD_SECONDS = 3_600;
const ROOT = fileURLToPath(new URL("..", import.meta.url));
const MODES = {
  stock: { simulated: {} },
  eager: { simulated: {}, mode: "eager" },
  idle: { simulated: {}, mode: "idle" },
  lazy: { simulated: {}, mode: "lazy" },
  "ten-sizes-by-hand": { simulated: { sizes: [1, 2, 4, 8, 16, 32, 64, 128, 256, 512] } },
  "no-graphs": { simulated: { sizes: [] } },
};
const SPEC = {
  title: "Six modes for an hour",
  modes: MODES,
  loads: { hour: { arrivals: "poisson", requestRate: 2, seconds: LOAD_SECONDS } },
};

const execute = promisify(execFile);
const executablePath = browserPath();
if (executablePath === undefined)
  throw new Error(`Expected one of ${BROWSERS.join(", ")} on PATH.`);

const folder = await mkdtemp(join(tmpdir(), "lazygraph-report-"));
const spec = join(folder, "spec.json");
await writeFile(spec, JSON.stringify(SPEC));
const startedAt = performance.now();
const main = join(ROOT, "dist", "cli", "main.js");
await execute(process.execPath, [main, "bench", "--spec", spec, "--out", folder, "--quiet"], {
  maxBuffer: 64 << 20,
});
const seconds = (performance.now() - startedAt) / 1000;
const simulatedSeconds = LOAD_SECONDS * Object.keys(MODES).length;
console.log(`${simulatedSeconds} simulated seconds and their report in ${seconds.toFixed(1)} s`);

const browser = await chromium.launch({ executablePath, args: [...BROWSER_ARGS] });
const pages = [];
for (const width of WIDTHS) {
  const page = await browser.newPage({ viewport: { width, height: 900 } });
  await page.goto(pathToFileURL(join(folder, "report.html")).href);
  await page.waitForSelector("html[data-drawn]", { state: "attached" });
  const cells = await page.locator(".glance td").count();
  const unseen = await page.evaluate<number>(UNSEEN);
  const overflowPixels = await page.evaluate<number>(OVERFLOW);
  const modes = await page.locator(".glance thead th").count();
  pages.push({ width, columns: modes - 1, figures: cells, unseen, overflowPixels });
  console.log(`${width} px: ${unseen} of ${cells} figures off the screen`);
  const kept = process.env["SCREENSHOTS"];
  if (kept !== undefined) {
    await page.screenshot({ path: join(kept, `report-${width}.png`), fullPage: true });
  }
}
const drawn = browser.version();
await browser.close();
await rm(folder, { recursive: true });
const result = {
  what: "figures of a report's first table that are not on the screen; seconds that the report took",
  simulated: true,
  host: { cpu: cpus()[0]?.model, cores: cpus().length, load: loadavg()[0] },
  browser: drawn,
  simulatedSeconds,
  seconds,
  pages,
};
const target = new URL("results/report-page.json", import.meta.url);
await writeFile(target, `${JSON.stringify(result, null, 1)}\n`);
const seen = pages.every(({ unseen, figures }) => figures > 0 && unseen === 0);
process.exitCode = seen && seconds < simulatedSeconds / 100 ? 0 : 1;
