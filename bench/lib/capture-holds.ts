/** How long captures between steps held engines up, and how much of that was not the capture. */

import type { CellRun } from "../../src/bench/samples.ts";
import { holdMs } from "../../src/bench/windows.ts";
import { quantile } from "../../src/measure/statistics.ts";

export interface CaptureHolds {
  readonly captures: number;
  /** From the command's start to its end in the engine, milliseconds. */
  readonly holdMs: Spread;
  /** Of that, what the capture itself didn't take: waiting for a step in flight, the command. */
  readonly besidesMs: Spread;
  /** Captures with more than 10 ms besides. */
  readonly besidesOver10: number;
}

export interface Spread {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

const MANY_MS = 10;

/** Over all runs; undefined without a capture. */
export function captureHolds(runs: readonly CellRun[]): CaptureHolds | undefined {
  const all = runs.flatMap(({ captures }) => captures);
  if (all.length === 0) return undefined;
  const besides = all.map((capture) => holdMs(capture) - capture.ms);
  return {
    captures: all.length,
    holdMs: spreadOf(all.map(holdMs)),
    besidesMs: spreadOf(besides),
    besidesOver10: besides.filter((value) => value > MANY_MS).length,
  };
}

function spreadOf(values: readonly number[]): Spread {
  return { p50: quantile(values, 0.5), p99: quantile(values, 0.99), max: Math.max(...values) };
}
