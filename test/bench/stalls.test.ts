/** Stalls by their cause: a capture and a compilation told apart, from samples made up here. */

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { rowGroups } from "../../src/bench/rows.ts";
import { runFigures } from "../../src/bench/run-figures.ts";
import { stallFigures } from "../../src/bench/stalls.ts";
import { summarise } from "../../src/bench/summary.ts";
import { Timeline } from "../../src/bench/timeline.ts";
import { completedOf } from "../../src/bench/windows.ts";
import { monotonicSeconds } from "../../src/startup/spans.ts";
import { capture, cellRun, request } from "./helpers/run.ts";

const hold = (startSeconds: number, endSeconds: number) => ({ startSeconds, endSeconds });
/** One request waits 3.4 s for its first token, others hardly. */
const REQUESTS = [request(0, 11, 20), request(1, 20, 3400), request(2, 30, 20)];
const times = { readySeconds: 10 };

function figures(more: object) {
  const run = cellRun({ times, requests: REQUESTS, ...more });
  return stallFigures(run, completedOf(run));
}

test("a stall of a compilation is told apart from one of a capture", () => {
  const captures = [{ ...capture("FULL:8", 20.1, 3200) }];
  expect(figures({ compilations: [hold(20.1, 23.2)] })).toEqual({
    longestTokenGapCause: "compilation",
    compilationsAfterReady: 1,
    longestCompilationMs: expect.closeTo(3100, 6),
    shareDelayedByCompilation: expect.closeTo(1 / 3, 12),
  });
  expect(figures({ captures, compilations: [] })).toEqual({
    ...{ longestTokenGapCause: "capture", compilationsAfterReady: 0 },
  });
  expect(figures({ captures, compilations: [hold(20.2, 23)] }).longestTokenGapCause).toBe("both");
});

test("what explains less than half of it explains nothing", () => {
  const told = { captures: [{ ...capture("FULL:8", 20.1, 100) }], compilations: [hold(21, 21.5)] };
  expect(figures(told).longestTokenGapCause).toBe("neither");
});

test("ranks that compile the same kernel at the same time count once", () => {
  const compilations = [hold(20.1, 21), hold(20.2, 21.1), hold(20.15, 20.9), hold(40, 41)];
  const found = figures({ compilations });
  expect(found.compilationsAfterReady).toBe(2);
  expect(found.longestCompilationMs).toBeCloseTo(1000, 6);
  // 1 of 3.4 s, not three times that.
  expect(found.longestTokenGapCause).toBe("neither");
});

test("where nobody times compilations nothing is said of them", () => {
  expect(figures({})).toEqual({});
  const run = cellRun({ times, requests: REQUESTS });
  expect(runFigures(run)).not.toHaveProperty("longestTokenGapCause");
  const rows = (given: ReturnType<typeof cellRun>): string[] => {
    const options = { title: "t", baseline: given.cell.mode, goodput: {}, runs: [given] };
    return rowGroups(summarise(options).cells).map(({ title }) => title);
  };
  const title = "Kernels compiled while it served (told apart from captures)";
  expect(rows(run)).not.toContain(title);
  expect(rows({ ...run, compilations: [hold(20.1, 23.2)] })).toContain(title);
});

test("an engine's compilations after ready, on the run's clock; without a plugin none are known", async () => {
  const timeline = await Timeline.open();
  const folder = timeline.variables["LAZYGRAPH_STARTUP_DIR"] ?? "";
  const originMs = performance.now() - 60_000;
  expect(await timeline.compilations(originMs, 0)).toBeUndefined();
  const now = monotonicSeconds();
  const spans = [
    { name: "JIT", begin: now - 55, end: now - 54 },
    { name: "captures", begin: now - 20, end: now - 10 },
    { name: "JIT", begin: now - 5, end: now - 2 },
  ];
  const simulated = { name: "weights", begin: now - 58, end: now - 57, simulated: true };
  await writeFile(join(folder, "spans-6.jsonl"), `${JSON.stringify(simulated)}\n`);
  expect(await timeline.compilations(originMs, 0)).toBeUndefined();
  const text = spans.map((span) => `${JSON.stringify(span)}\n`).join("");
  await writeFile(join(folder, "spans-7.jsonl"), text);
  const [only, ...others] = (await timeline.compilations(originMs, 30)) ?? [];
  expect(others).toEqual([]);
  expect((only?.endSeconds ?? 0) - (only?.startSeconds ?? 0)).toBeCloseTo(3, 6);
  // On one clock: both origins are this process's.
  expect(only?.startSeconds).toBeGreaterThan(54);
  expect(only?.endSeconds).toBeLessThan(60);
  await timeline.close();
  await expect(timeline.compilations(originMs, 0)).rejects.toThrow("ENOENT");
});
