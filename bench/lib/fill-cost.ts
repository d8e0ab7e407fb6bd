/** What captures cost the requests that came while they were made: the same ones, in both modes. */

import { type Estimate, estimate } from "../../src/bench/bootstrap.ts";
import type { CellRun, RequestRecord } from "../../src/bench/samples.ts";
import { completedOf, holdMs, inWindow, isDelayed, ttftMs } from "../../src/bench/windows.ts";
import { mean } from "../../src/measure/statistics.ts";
import { matched, ttftsOf, type Values } from "./matched.ts";

export interface FillCost {
  readonly load: string;
  readonly runs: number;
  /** Requests that were due between the first capture and the last one, over all runs. */
  readonly requests: number;
  /** Those of them whose first token waited for a capture. */
  readonly delayed: number;
  /** TTFT less the baseline's mean of the same request, in milliseconds; of the delayed, too. */
  readonly extraMs: Estimate | undefined;
  readonly delayedExtraMs: Estimate | undefined;
  readonly longestExtraMs: number | undefined;
  /**
   * Of each delayed request: its TTFT less the baseline's mean and less the longest capture that
   * held it up, in milliseconds, longest first. Above zero it waited for more than one capture, or
   * for a step besides.
   */
  readonly overCaptureMs: readonly number[];
}

/** Undefined where the mode has no run under this load. */
export function fillCost(
  runs: readonly CellRun[],
  load: string,
  mode: string,
  baseline: string,
): FillCost | undefined {
  const of = (name: string): CellRun[] =>
    runs.filter(({ cell }) => cell.mode === name && cell.load === load);
  const ours = of(mode);
  if (ours.length === 0) return undefined;
  const usual = meansByRequest(of(baseline));
  /** NaN where the baseline has no such request. */
  const extraMs = (request: RequestRecord): number =>
    ttftMs(request) - (usual.get(request.index) ?? Number.NaN);
  const known = (values: readonly number[]): number[] =>
    values.filter((value) => !Number.isNaN(value));
  const parts = ours.map((run) => {
    const due = inWindow(run, "during", completedOf(run));
    return { run, due, delayed: inWindow(run, "delayed", due) };
  });
  const all = parts.flatMap(({ due }) => known(due.map(extraMs)));
  const overCaptureMs = parts.flatMap(({ run, delayed }) =>
    known(delayed.map((request) => extraMs(request) - longestHoldMs(run, request))),
  );
  return {
    load,
    runs: ours.length,
    requests: parts.flatMap(({ due }) => due).length,
    delayed: parts.flatMap(({ delayed }) => delayed).length,
    extraMs: estimate(parts.map(({ due }) => known(due.map(extraMs))))?.mean,
    delayedExtraMs: estimate(parts.map(({ delayed }) => known(delayed.map(extraMs))))?.mean,
    longestExtraMs: all.length === 0 ? undefined : Math.max(...all),
    overCaptureMs: overCaptureMs.sort((a, b) => b - a),
  };
}

/** Of the captures between sending a request and its first token. */
function longestHoldMs({ captures }: CellRun, request: RequestRecord): number {
  const met = captures.filter((capture) => isDelayed(request, [capture]));
  return Math.max(0, ...met.map(holdMs));
}

function meansByRequest(runs: readonly CellRun[]): Map<number, number> {
  const values = new Map<number, number[]>();
  for (const request of runs.flatMap(completedOf)) {
    values.set(request.index, [...(values.get(request.index) ?? []), ttftMs(request)]);
  }
  return new Map([...values].map(([index, own]) => [index, mean(own)]));
}

export interface Stretch {
  readonly mode: string;
  /** Seconds from the start of the schedule. */
  readonly from: number;
  readonly to: number;
  readonly requests: number;
  /** Of the median TTFT to the baseline's on the same requests. */
  readonly ratio: Estimate | undefined;
}

/**
 * Each mode's median TTFT over the baseline's, stretch by stretch of the schedule: what a mode costs
 * while it has few graphs would drown in a figure of the whole.
 *
 * @param loads names of loads that are the same schedule, cut at different lengths
 */
export function stretches(
  runs: readonly CellRun[],
  loads: readonly string[],
  baseline: string,
  limits: readonly number[],
): Stretch[] {
  const here = runs.filter(({ cell }) => loads.includes(cell.load));
  const theirs = here.filter(({ cell }) => cell.mode === baseline);
  const modes = [...new Set(here.map(({ cell }) => cell.mode))].filter((own) => own !== baseline);
  return modes.flatMap((mode) => {
    const ours = here.filter(({ cell }) => cell.mode === mode);
    return limits.slice(1).map((to, index) => {
      const from = limits[index] as number;
      const part = (run: CellRun): Values => ttftsBetween(run, from, to);
      const found = matched(ours.map(part), theirs.map(part));
      return { mode, from, to, requests: found?.requests ?? 0, ratio: found?.medianRatio };
    });
  });
}

function ttftsBetween(run: CellRun, from: number, to: number): Values {
  const start = run.times.scheduleSeconds ?? 0;
  const between = completedOf(run).filter(
    ({ dueSeconds }) => dueSeconds - start >= from && dueSeconds - start < to,
  );
  return ttftsOf(between);
}
