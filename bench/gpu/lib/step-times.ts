/** What the test plugin (worker/testing) wrote about an engine's steps. */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { quantile } from "../../../src/measure/statistics.ts";
import type { StepClock } from "./decode.ts";
import { performanceMs } from "./start-timing.ts";

export interface EngineStep {
  /** When it began: milliseconds of `performance.now()`. */
  readonly atMs: number;
  /** Requests it decoded one token each for; 0 where it did anything else. */
  readonly requests: number;
}

/** Fewer say nothing of a median. */
const INTERVALS_MIN = 16;

/** The first rank's steps; all ranks step together. */
export function readSteps(folder: string): EngineStep[] {
  const file = readdirSync(folder).find((name) => /^steps-0-\d+\.jsonl$/.test(name));
  if (file === undefined) {
    throw new Error(
      `Expected an engine's steps in ${folder}, got none: install worker/testing into its Python.`,
    );
  }
  // The last line may still be in writing.
  const lines = readFileSync(join(folder, file), "utf8").split("\n").slice(0, -1);
  // Read once: what lies between two steps must not hold what lies between two reads of clocks.
  const zeroMs = performanceMs(0);
  return lines.map((line) => {
    const [seconds, requests] = JSON.parse(line) as [number, number];
    return { atMs: zeroMs + seconds * 1000, requests };
  });
}

/** The median of what lies between neighbouring steps that decode as many; undefined if too few. */
export function stepMs(
  steps: readonly EngineStep[],
  concurrent: number,
  fromMs: number,
  toMs: number,
): number | undefined {
  const intervals = steps.slice(1).flatMap((step, i) => {
    const before = steps[i] as EngineStep;
    const alike = before.requests === concurrent && step.requests === concurrent;
    return alike && before.atMs >= fromMs && step.atMs <= toMs ? [step.atMs - before.atMs] : [];
  });
  return intervals.length < INTERVALS_MIN ? undefined : quantile(intervals, 0.5);
}

export function stepClockOf(folder: string): StepClock {
  return (...window) => stepMs(readSteps(folder), ...window);
}
