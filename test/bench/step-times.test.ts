import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type EngineStep, readSteps, stepMs } from "../../bench/gpu/lib/step-times.ts";

function steps(requests: number, ms: number, count: number, fromMs: number): EngineStep[] {
  return Array.from({ length: count }, (_, i) => ({ atMs: fromMs + i * ms, requests }));
}

describe("the time of an engine's own steps", () => {
  const decoding = [...steps(64, 4, 40, 1000), ...steps(0, 30, 1, 1160), ...steps(64, 4, 40, 1190)];

  test("is the median between neighbours that decode as many", () => {
    expect(stepMs(decoding, 64, 0, 5000)).toBe(4);
    // 39 and 39 intervals: those beside the step that decoded nothing are none of them.
    const slow = decoding.map((step) => (step.requests === 0 ? { ...step, requests: 63 } : step));
    expect(stepMs(slow, 64, 0, 5000)).toBe(4);
  });

  test("counts no step outside its repetition, nor of another number of requests", () => {
    const twice = [...steps(8, 3, 40, 0), ...steps(8, 5, 40, 1000)];
    expect(stepMs(twice, 8, 0, 500)).toBe(3);
    expect(stepMs(twice, 8, 1000, 2000)).toBe(5);
    expect(stepMs(twice, 7, 0, 2000)).toBeUndefined();
  });

  test("is unknown of too few steps", () => {
    expect(stepMs(steps(8, 3, 16, 0), 8, 0, 500)).toBeUndefined();
    expect(stepMs(steps(8, 3, 17, 0), 8, 0, 500)).toBe(3);
  });
});

test("the first rank's file is read up to its last whole line, on this process's clock", () => {
  const folder = mkdtempSync(join(tmpdir(), "lazygraph-steps-"));
  try {
    expect(() => readSteps(folder)).toThrow(/Expected an engine's steps in .*, got none: install/);
    const now = Number(process.hrtime.bigint()) / 1e9;
    writeFileSync(join(folder, "steps-1-8.jsonl"), "[1.0, 1]\n");
    writeFileSync(join(folder, "steps-0-7.jsonl"), `[${now}, 2]\n[${now + 1}, 0]\n[${now + 2}`);
    const read = readSteps(folder);
    expect(read.map(({ requests }) => requests)).toEqual([2, 0]);
    expect((read[1]?.atMs ?? 0) - (read[0]?.atMs ?? 0)).toBeCloseTo(1000, 0);
    // The same moment on both clocks: what passed since lies between.
    expect(read[0]?.atMs).toBeLessThanOrEqual(performance.now());
    expect(read[0]?.atMs).toBeGreaterThan(performance.now() - 60_000);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
