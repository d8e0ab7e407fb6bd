/** The trade-off of the stall budget, and all modes on the requests of the first minute. */

import { type Estimate, estimate } from "../../src/bench/bootstrap.ts";
import { runFigures } from "../../src/bench/run-figures.ts";
import type { CellRun } from "../../src/bench/samples.ts";
import {
  completedOf,
  fillOf,
  isDelayed,
  readySecondsOf,
  tpotMs,
  ttftMs,
} from "../../src/bench/windows.ts";
import { bootstrapMean, type Interval } from "../../src/measure/statistics.ts";
import { matched, type Values } from "./matched.ts";

/** One setting of the stall budget. */
export interface TradeOffPoint {
  readonly mode: string;
  /** Share of the time by which fill may hold up an engine with work. */
  readonly fillShare: number;
  readonly runs: number;
  readonly requests: number;
  /** Requests that waited for their first token while a capture held the engine up. */
  readonly shareDelayed: Estimate | undefined;
  /** Those that met a capture from being sent to their last token. */
  readonly shareMet: Interval | undefined;
  /** From ready; runs that did not settle while requests came are not in it. */
  readonly secondsToSettled: Interval | undefined;
  readonly settledRuns: number;
  /** Share of the plan that was there when the last request was due. */
  readonly capturedShare: Interval | undefined;
  /** Steps that a graph of the plan could have served and none did, of all steps. */
  readonly ungraphedShare: Interval | undefined;
  readonly ttftP50Ms: Estimate | undefined;
  readonly ttftP99Ms: Estimate | undefined;
  readonly tpotP50Ms: Estimate | undefined;
  readonly tpotP99Ms: Estimate | undefined;
}

/** Of all modes under this load that have a controller, by their budget. */
export function tradeOff(runs: readonly CellRun[], load: string): TradeOffPoint[] {
  const here = runs.filter(({ cell, mode }) => cell.load === load && mode.mode !== undefined);
  const modes = [...new Set(here.map(({ cell }) => cell.mode))];
  return modes
    .map((mode) =>
      pointOf(
        mode,
        here.filter(({ cell }) => cell.mode === mode),
      ),
    )
    .sort((a, b) => a.fillShare - b.fillShare);
}

function pointOf(mode: string, runs: readonly CellRun[]): TradeOffPoint {
  const share = runs[0]?.mode.controller?.["fillShare"];
  const settled = runs.flatMap((run) => settledSecondsOf(run) ?? []);
  const ttfts = estimate(runs.map((run) => completedOf(run).map(ttftMs)));
  const tpots = estimate(
    runs.map((run) => completedOf(run).flatMap((request) => tpotMs(request) ?? [])),
  );
  return {
    mode,
    fillShare: typeof share === "number" ? share : 0,
    runs: runs.length,
    requests: runs.reduce((sum, run) => sum + completedOf(run).length, 0),
    shareDelayed: estimate(runs.map(delayedOf))?.mean,
    shareMet: over(runs.flatMap((run) => runFigures(run).shareMet ?? [])),
    secondsToSettled: over(settled),
    settledRuns: settled.length,
    capturedShare: over(runs.flatMap((run) => capturedShareOf(run) ?? [])),
    ungraphedShare: over(runs.flatMap((run) => ungraphedShareOf(run) ?? [])),
    ttftP50Ms: ttfts?.p50,
    ttftP99Ms: ttfts?.p99,
    tpotP50Ms: tpots?.p50,
    tpotP99Ms: tpots?.p99,
  };
}

/** 1 for each request that a capture held up, else 0: their mean is the share. */
function delayedOf(run: CellRun): number[] {
  return completedOf(run).map((request) => (isDelayed(request, run.captures) ? 1 : 0));
}

function ungraphedShareOf(run: CellRun): number | undefined {
  const largest = Math.max(0, ...(run.engine?.graphs ?? []).map(({ tokens }) => tokens));
  let all = 0;
  let ungraphed = 0;
  for (const { tokens, served, count } of run.steps.flatMap(({ steps }) => steps)) {
    all += count;
    if (served === "" && tokens <= largest) ungraphed += count;
  }
  return all === 0 ? undefined : ungraphed / all;
}

function over(values: readonly number[]): Interval | undefined {
  return values.length === 0 ? undefined : bootstrapMean(values);
}

/** Once no request comes any more an engine fills whatever the budget: that says nothing of it. */
function settledSecondsOf(run: CellRun): number | undefined {
  const planned = run.engine?.graphsPlanned ?? Number.POSITIVE_INFINITY;
  const last = fillOf(run)?.to;
  const captured = run.captures.at(-1)?.graphsCaptured ?? 0;
  if (last === undefined || captured < planned || last > lastDueOf(run)) return undefined;
  return last - readySecondsOf(run);
}

function capturedShareOf(run: CellRun): number | undefined {
  const planned = run.engine?.graphsPlanned;
  if (planned === undefined || planned === 0) return undefined;
  const until = lastDueOf(run);
  const last = run.captures.findLast(({ endSeconds }) => endSeconds <= until);
  return (last?.graphsCaptured ?? run.graphsAtReady?.length ?? 0) / planned;
}

function lastDueOf(run: CellRun): number {
  return Math.max(...run.requests.flatMap(({ warmUp, dueSeconds }) => (warmUp ? [] : dueSeconds)));
}

/** A mode on the requests that every mode answered. */
export interface FirstMinuteRow {
  readonly mode: string;
  readonly runs: number;
  readonly requests: number;
  readonly ttftP50Ms: Estimate | undefined;
  readonly ttftP99Ms: Estimate | undefined;
  readonly tpotP50Ms: Estimate | undefined;
  /** Ratio of the medians to the baseline's, request by request; absent for the baseline. */
  readonly ttftRatio: Estimate | undefined;
  readonly tpotRatio: Estimate | undefined;
}

/**
 * All modes on the requests of the shortest of the loads, which are the first of every longer one.
 *
 * @param loads names of loads that are the same schedule, cut at different lengths
 */
export function firstMinute(
  runs: readonly CellRun[],
  loads: readonly string[],
  baseline: string,
): FirstMinuteRow[] {
  const here = runs.filter(({ cell }) => loads.includes(cell.load));
  const count = Math.min(...here.map(({ requestsScheduled }) => requestsScheduled));
  const of = (mode: string): CellRun[] => here.filter(({ cell }) => cell.mode === mode);
  const modes = [...new Set([baseline, ...here.map(({ cell }) => cell.mode)])];
  return modes
    .filter((mode) => of(mode).length > 0)
    .map((mode) => rowOf(mode, of(mode), mode === baseline ? [] : of(baseline), count));
}

function rowOf(
  mode: string,
  ours: readonly CellRun[],
  theirs: readonly CellRun[],
  count: number,
): FirstMinuteRow {
  const ttft = (run: CellRun): Values => valuesOf(run, count, ttftMs);
  const tpot = (run: CellRun): Values => valuesOf(run, count, tpotMs);
  const ttfts = estimate(ours.map((run) => [...ttft(run).values()]));
  const tpots = estimate(ours.map((run) => [...tpot(run).values()]));
  return {
    mode,
    runs: ours.length,
    requests: ttfts?.samples ?? 0,
    ttftP50Ms: ttfts?.p50,
    ttftP99Ms: ttfts?.p99,
    tpotP50Ms: tpots?.p50,
    ttftRatio: matched(ours.map(ttft), theirs.map(ttft))?.medianRatio,
    tpotRatio: matched(ours.map(tpot), theirs.map(tpot))?.medianRatio,
  };
}

function valuesOf(
  run: CellRun,
  count: number,
  pick: (request: ReturnType<typeof completedOf>[number]) => number | undefined,
): Values {
  const values = new Map<number, number>();
  for (const request of completedOf(run)) {
    const value = request.index < count ? pick(request) : undefined;
    if (value !== undefined) values.set(request.index, value);
  }
  return values;
}
