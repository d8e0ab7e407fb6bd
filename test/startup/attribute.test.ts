import { expect, test } from "vitest";
import { phaseTimes, segments } from "../../src/startup/attribute.ts";
import type { Span } from "../../src/startup/spans.ts";
import { differences, startResult } from "../../src/startup/start.ts";
import { comparison, waterfall } from "../../src/startup/text.ts";
import { traceEvents } from "../../src/startup/trace-events.ts";

function span(name: string, begin: number, end: number, pid = 1, detail = {}): Span {
  return { name, begin, end, pid, detail };
}

/** The API server waits for its engine, which waits for two ranks. */
const SPANS = [
  span("imports", 101, 110),
  span("engine client", 110.5, 130),
  span("imports", 111, 119, 2),
  span("executor", 119, 125, 2),
  span("weights", 120, 123, 3, { bytes: 2 ** 30, loader: "auto" }),
  span("weights", 120.5, 124, 4),
  span("API server", 130, 131),
];

test("a moment belongs to what began last, in any process", () => {
  const pieces = segments(SPANS, 100, 132);
  expect(pieces).toEqual([
    { name: "spawn", begin: 0, end: 1 },
    { name: "imports", begin: 1, end: 10 },
    { name: "unattributed", begin: 10, end: 10.5 },
    { name: "engine client", begin: 10.5, end: 11 },
    { name: "imports", begin: 11, end: 19 },
    { name: "executor", begin: 19, end: 20 },
    { name: "weights", begin: 20, end: 24 },
    { name: "executor", begin: 24, end: 25 },
    { name: "engine client", begin: 25, end: 30 },
    { name: "API server", begin: 30, end: 31 },
    { name: "unattributed", begin: 31, end: 32 },
  ]);
  const times = phaseTimes(pieces);
  expect(times.map(({ name }) => name)).toEqual([
    "spawn",
    "imports",
    "engine client",
    "executor",
    "weights",
    "API server",
    "unattributed",
  ]);
  expect(times.find(({ name }) => name === "imports")?.seconds).toBe(17);
  expect(times.at(-1)).toEqual({ name: "unattributed", seconds: 1.5 });
});

test.for([1, 2, 3, 4, 5])(
  "phases add up to the time from spawn to ready (spans drawn %i)",
  (seed) => {
    let state = seed;
    const draw = (): number => {
      state = (state * 16_807) % 2_147_483_647;
      return state / 2_147_483_647;
    };
    const spans = Array.from({ length: 200 }, (_, index) => {
      const begin = 95 + 40 * draw();
      return span(`phase ${index % 7}`, begin, begin + 10 * draw() ** 3, 1 + (index % 3));
    }).sort((a, b) => a.begin - b.begin);
    const pieces = segments(spans, 100, 130);
    const sum = phaseTimes(pieces).reduce((total, { seconds }) => total + seconds, 0);
    expect(sum).toBeCloseTo(30, 9);
    for (const [index, piece] of pieces.entries()) {
      expect(piece.end).toBeGreaterThan(piece.begin);
      expect(piece.begin).toBeCloseTo(pieces[index - 1]?.end ?? 0, 9);
    }
  },
);

test("what is outside of the start is cut off; without spans nothing is known", () => {
  const pieces = segments([span("imports", 90, 105), span("late", 125, 140)], 100, 130);
  expect(pieces.map(({ name }) => name)).toEqual(["imports", "unattributed", "late"]);
  expect(segments([], 100, 130)).toEqual([{ name: "unattributed", begin: 0, end: 30 }]);
});

function result(variant: string, spans: readonly Span[], ready: number) {
  const times = { readySeconds: ready - 100, firstTokenSeconds: ready - 99.5 };
  return startResult(variant, 1, times, segments(spans, 100, ready), spans);
}

test("a waterfall has a bar for each phase, weights' bytes and what is not known", () => {
  const text = waterfall(result("base", SPANS, 132));
  expect(text).toMatch(
    /^base, start 1: ready 32\.00 s after the spawn, first token after 32\.50 s\n/,
  );
  expect(text).toMatch(/^ {2}imports +17\.00 {2}·█+·+█+·+$/m);
  expect(text).toContain("weights: 1.00 GiB by auto");
  expect(text).toContain("7 spans of 4 processes; 4.7% unattributed");
});

test("simulated ones say so", () => {
  const simulated = result("sim", [span("weights", 101, 110, 1, { simulated: true })], 111);
  expect(waterfall(simulated)).toContain("simulated engine: no figures of a GPU");
  expect(waterfall(result("base", SPANS, 132))).not.toContain("simulated");
});

test("variants differ by the phase that made it", () => {
  const base = result("base", SPANS, 132);
  const forked = result("forked", [span("imports", 100.5, 101), span("weights", 101, 105)], 106);
  expect(differences([base], [forked])[0]).toEqual({ name: "imports", base: 17, other: 0.5 });
  const lines = comparison([base], [forked]).split("\n");
  expect(lines[0]).toBe(
    "forked against base: first token after 6.50 s in place of 32.50 s (one start each)",
  );
  expect(lines[1]).toBe("  −16.50 s imports: 17.00 → 0.50");
});

test("the trace has a row for each process, in microseconds from the spawn", () => {
  const events = traceEvents("base 1", SPANS, 100, 2000);
  expect(events.filter(({ ph }) => ph === "M").map(({ pid }) => pid)).toEqual([
    2001, 2002, 2003, 2004,
  ]);
  const weights = events.filter(({ name }) => name === "weights");
  expect(weights).toMatchObject([
    { ph: "X", ts: 20e6, dur: 3e6, pid: 2003, args: { loader: "auto" } },
    { ph: "X", ts: 20.5e6, dur: 3.5e6, pid: 2004 },
  ]);
});
