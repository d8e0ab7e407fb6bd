/** The report in a real browser, where this machine has one. */

import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { type Browser, chromium, type Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  BROWSER_ARGS,
  BROWSERS,
  browserPath,
  OVERFLOW,
  UNSEEN,
} from "../../bench/lib/report-page.ts";
import { writeReport } from "../../src/bench/report.ts";
import type { CellRun } from "../../src/bench/samples.ts";
import { openFolder, SampleWriter, writeDocument } from "../../src/bench/store.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { capture, cellRun, request } from "./helpers/run.ts";

const executablePath = browserPath();
if (executablePath === undefined && process.env["REQUIRE_BROWSER"] === "1") {
  throw new Error(`REQUIRE_BROWSER is set, and none of ${BROWSERS.join(", ")} is on PATH.`);
}

function runs(): CellRun[] {
  const requests = Array.from({ length: 60 }, (_, index) => {
    return request(index, index * 0.5, 15 + (index % 7) * 4 + (index === 20 ? 60 : 0));
  });
  const stock = cellRun({ requests, simulated: "a profile" });
  const captures = Array.from({ length: 12 }, (_, index) => capture(`FULL:${index}`, index, 30));
  const memory = captures.map(({ endSeconds }, index) => ({
    atSeconds: endSeconds,
    graphsCaptured: index + 3,
    takenBytes: (700 + index) * 2 ** 20,
  }));
  const ours = (mode: "lazy" | "idle"): CellRun =>
    cellRun({
      cell: { mode, load: "load", run: 1 },
      mode: { simulated: {}, mode },
      simulated: "a profile",
      requests,
      captures,
      memory,
    });
  return [stock, ours("lazy"), ours("idle")];
}

/** Six modes, three runs of each, so that every figure has its interval. */
function sixModes(): CellRun[] {
  const modes = ["stock", "eager", "idle", "lazy", "ten-sizes-by-hand", "no-graphs"];
  return modes.flatMap((mode, index) =>
    [1, 2, 3].map((run) => {
      const readySeconds = 52.5 - index + run / 7;
      const requests = Array.from({ length: 60 }, (_, at) =>
        request(at, readySeconds + at * 0.5, 1035.6 + run * 3.3 + index * 10 + (at % 9) * 7),
      );
      return cellRun({
        cell: { mode, load: "load", run },
        mode: { command: ["serve", "{port}"] },
        times: { readySeconds, firstTokenSeconds: readySeconds + 1.3 },
        requests,
      });
    }),
  );
}

async function makeReport(of: readonly CellRun[] = runs()): Promise<string> {
  const folder = join(await temporaryFolder(), "bench");
  await openFolder(folder);
  const facts = { format: 1, title: "A report", baseline: "stock", goodput: {}, modes: [] };
  await writeDocument(join(folder, "bench.json"), facts);
  for (const run of of) {
    const { requests, captures, steps: _, memory, ...head } = run;
    const writer = await SampleWriter.open(folder, head);
    for (const value of requests) writer.keep({ type: "request", value });
    for (const value of captures) writer.keep({ type: "capture", value });
    for (const value of memory) writer.keep({ type: "memory", value });
    await writer.close(head);
  }
  await writeReport(folder);
  return pathToFileURL(join(folder, "report.html")).href;
}

/*
 * What runs in the page is text, because the types of a browser's globals would let the whole
 * package use them.
 */

/** Pixels of each plot that are not transparent. */
const INK = `[...document.querySelectorAll("[data-plot] canvas")].map((canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let ink = 0;
  for (let at = 3; at < data.length; at += 4) if (data[at] > 0) ink++;
  return ink;
})`;

/** WCAG's contrast of the text against the page. */
const CONTRAST = `(() => {
  const luminance = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).map((part) => {
      const value = Number(part) / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const { color, backgroundColor } = getComputedStyle(document.body);
  const [a, b] = [luminance(color), luminance(backgroundColor)];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
})()`;

/** How many numbers stand at the axis with the fewest. */
const FEWEST_LABELS = `Math.min(...[...document.querySelectorAll("[data-plot]")]
  .flatMap(({ dataset }) => [Number(dataset.xLabels), Number(dataset.yLabels)]))`;
const SCHEME = "document.documentElement.dataset.scheme";
const DRAWN = "document.documentElement.dataset.drawn";
const inkOf = (page: Page): Promise<number[]> => page.evaluate<number[]>(INK);

const reason =
  executablePath === undefined ? ` (skipped: none of ${BROWSERS.join(", ")} on PATH)` : "";

describe.skipIf(executablePath === undefined)(`the report in a browser${reason}`, () => {
  let browser: Browser;

  beforeAll(async () => {
    browser = await chromium.launch({
      executablePath: executablePath ?? "",
      args: [...BROWSER_ARGS],
      timeout: 120_000,
    });
  }, 180_000);

  afterAll(async () => {
    await browser?.close();
  });

  test.for([
    ["light", 1280],
    ["dark", 1280],
    ["light", 390],
  ] as const)("%s, %i pixels wide", { timeout: 120_000 }, async ([scheme, width]) => {
    const url = await makeReport();
    const page = await browser.newPage({
      colorScheme: scheme,
      viewport: { width, height: 900 },
    });
    const complaints: string[] = [];
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) complaints.push(message.text());
    });
    page.on("pageerror", (error) => complaints.push(error.message));
    page.on("request", (request) => {
      if (request.url() !== url) complaints.push(`asked for ${request.url()}`);
    });
    await page.goto(url);
    await page.waitForSelector("html[data-drawn]", { state: "attached" });
    const plots = await page.locator("[data-plot]").count();
    // One over time for each mode, two distributions, graphs, memory.
    expect(plots).toBe(7);
    expect(await page.evaluate<string>(DRAWN)).toBe("7");
    const ink = await inkOf(page);
    expect(ink).toHaveLength(plots);
    for (const pixels of ink) expect(pixels).toBeGreaterThan(1000);
    expect(await page.evaluate<number>(FEWEST_LABELS)).toBeGreaterThanOrEqual(2);
    expect(await page.evaluate<string>(SCHEME)).toBe(scheme);
    expect(await page.evaluate<number>(CONTRAST)).toBeGreaterThan(7);
    await expectAccessible(page, plots);
    // Wide tables scroll inside themselves, so that the page needn't.
    expect(await page.evaluate<number>(OVERFLOW)).toBeLessThanOrEqual(0);
    expect(complaints).toEqual([]);
    await page.close();
  });

  test.for([1120, 375])(
    "every figure of six modes is on the page at %i pixels",
    { timeout: 120_000 },
    async (width) => {
      const page = await browser.newPage({ viewport: { width, height: 900 } });
      await page.goto(await makeReport(sixModes()));
      await page.waitForSelector("html[data-drawn]", { state: "attached" });
      expect(await page.locator(".glance td").count()).toBeGreaterThanOrEqual(6 * 6);
      expect(await page.evaluate<number>(UNSEEN)).toBe(0);
      expect(await page.evaluate<number>(OVERFLOW)).toBeLessThanOrEqual(0);
      // Start-up and the verdict come before anything else.
      expect(await page.locator("main > section:first-child li").count()).toBe(5);
      const first = page.locator(".glance tbody tr:first-child th");
      expect(await first.textContent()).toBe("spawn to ready, s");
      const folder = process.env["SCREENSHOTS"];
      if (folder !== undefined)
        await page.screenshot({ path: join(folder, `report-${width}.png`), fullPage: true });
      await page.close();
    },
  );

  test("the button goes through the schemes and draws again", { timeout: 120_000 }, async () => {
    const url = await makeReport();
    const page = await browser.newPage({ colorScheme: "light" });
    await page.goto(url);
    const scheme = () => page.evaluate<string>(SCHEME);
    const button = page.locator("#scheme");
    const seen: (string | undefined)[] = [await scheme()];
    for (let press = 0; press < 3; press++) {
      await button.click();
      seen.push(await scheme());
    }
    expect(seen).toEqual(["light", "light", "dark", "light"]);
    await page.emulateMedia({ colorScheme: "dark" });
    // Not by polling a function: the page forbids making one of a text.
    await page.waitForSelector('html[data-scheme="dark"]', { state: "attached" });
    for (const pixels of await inkOf(page)) expect(pixels).toBeGreaterThan(1000);
    await page.close();
  });
});

/** A name for every plot, a table behind it, a caption or label for every region. */
async function expectAccessible(page: Page, plots: number): Promise<void> {
  expect(await page.locator("[data-plot][role=img][aria-label]").count()).toBe(plots);
  expect(await page.locator("[data-plot] + details table").count()).toBe(plots);
  expect(await page.locator("table:not(:has(th[scope=col]))").count()).toBe(0);
  expect(await page.locator(".wide:not([aria-label])").count()).toBe(0);
  expect(await page.locator("html[lang=en]").count()).toBe(1);
  const links = await page
    .locator("main a")
    .evaluateAll((found) => found.map((link) => link.getAttribute("href") ?? ""));
  expect(links).toEqual(["#load-0"]);
  for (const link of links) expect(await page.locator(link).count()).toBe(1);
  expect(await page.locator("h1").count()).toBe(1);
}
