/** How soon after ready a server decodes as stock does, and how long requests wait. Pure. */

import type { RequestRecord } from "../../../src/bench/samples.ts";
import { mean, quantile, sortedOf } from "../../../src/measure/statistics.ts";
import { interpolate } from "../../../src/schedule/costed/cost.ts";
import { lowerBound } from "../../../src/schedule/costed/savings.ts";

/** One output token after a request's first: when it came, and the time since the one before. */
export interface Gap {
  readonly atSeconds: number;
  readonly ms: number;
  /** Requests between their first and last token in its middle. */
  readonly decoding: number;
}

const WINDOW_SECONDS = 1;
const STEP_SECONDS = 0.1;
/** As much above stock's steady time per token still counts as parity. */
export const PARITY_SHARE = 0.1;

/** In order of time. */
export function gapsOf(requests: readonly RequestRecord[]): Gap[] {
  const gaps: Omit<Gap, "decoding">[] = [];
  const [firsts, lasts]: [number[], number[]] = [[], []];
  for (const { firstSeconds, itlMicros } of requests) {
    let atSeconds = firstSeconds ?? 0;
    firsts.push(atSeconds);
    for (const micros of itlMicros) {
      atSeconds += micros / 1e6;
      gaps.push({ atSeconds, ms: micros / 1000 });
    }
    lasts.push(atSeconds);
  }
  const [began, ended] = [sortedOf(firsts), sortedOf(lasts)];
  return gaps
    .sort((a, b) => a.atSeconds - b.atSeconds)
    .map((gap) => {
      const middle = gap.atSeconds - gap.ms / 2000;
      return { ...gap, decoding: lowerBound(began, middle) - lowerBound(ended, middle) };
    });
}

/** Median of the gaps that end in [from, to); undefined of none. */
function medianBetween(gaps: readonly Gap[], from: number, to: number): number | undefined {
  const inside = gaps.filter(({ atSeconds }) => atSeconds >= from && atSeconds < to);
  return inside.length === 0
    ? undefined
    : quantile(
        inside.map(({ ms }) => ms),
        0.5,
      );
}

/** Medians of one-second windows, each a tenth of a second after the one before; null of none. */
export function windowsOf(gaps: readonly Gap[], from: number, to: number): (number | null)[] {
  const steps = Math.floor((to - from - WINDOW_SECONDS) / STEP_SECONDS + 1e-9);
  return Array.from({ length: Math.max(0, steps + 1) }, (_, step) => {
    const start = from + step * STEP_SECONDS;
    return medianBetween(gaps, start, start + WINDOW_SECONDS) ?? null;
  });
}

export interface Parity {
  /** From the first window's beginning to the moment from which all are within the share. */
  readonly seconds: number;
  /** False where the last window was still above it: `seconds` is then only a lower bound. */
  readonly reached: boolean;
  readonly windows: number;
  readonly windowsAbove: number;
}

/**
 * @param windowMs of `windowsOf`
 * @param steadyMs stock's steady median time per output token, or 1 of shares
 */
export function parityOf(
  windowMs: readonly (number | null)[],
  steadyMs: number,
  share = PARITY_SHARE,
): Parity {
  let [windows, windowsAbove, seconds, reached] = [0, 0, 0, true];
  for (const [step, median] of windowMs.entries()) {
    if (median === null) continue;
    windows += 1;
    reached = median <= steadyMs * (1 + share);
    if (reached) continue;
    windowsAbove += 1;
    // The next window is the first that may be good.
    seconds = (step + 1) * STEP_SECONDS;
  }
  return { seconds, reached: reached && windows > 0, windows, windowsAbove };
}

/** Median gap by requests that decode, which rise. */
export type MsByRequests = readonly (readonly [requests: number, ms: number])[];

/** When all that waited for ready comes. */
const SETTLING_SECONDS = 0.5;
const GAPS_MIN = 100;

export function msByRequests(
  requests: readonly RequestRecord[],
  readySeconds: number,
): MsByRequests {
  const by = new Map<number, number[]>();
  for (const { atSeconds, ms, decoding } of gapsOf(requests)) {
    if (atSeconds < readySeconds + SETTLING_SECONDS) continue;
    by.set(decoding, by.get(decoding) ?? []);
    by.get(decoding)?.push(ms);
  }
  return [...by]
    .filter(([, all]) => all.length >= GAPS_MIN)
    .map(([decoding, all]) => [decoding, quantile(all, 0.5)] as const)
    .sort(([a], [b]) => a - b);
}

/** Each gap's `ms` as a share of stock's; beyond known numbers the nearest one's counts. */
export function sharesOf(gaps: readonly Gap[], stock: MsByRequests): Gap[] {
  const most = stock.at(-1)?.[0] ?? 0;
  return gaps.map((gap) => {
    return { ...gap, ms: gap.ms / interpolate(stock, Math.min(gap.decoding, most)) };
  });
}

export interface Waits {
  readonly requests: number;
  /** From when a request was due to its first token. */
  readonly meanSeconds: number;
  readonly medianSeconds: number;
}

/** Of the requests due in [from, to); failed ones have no wait and are counted by the caller. */
export function waitsOf(
  requests: readonly RequestRecord[],
  from: number,
  to: number,
): Waits | undefined {
  const waits = requests.flatMap(({ dueSeconds, firstSeconds }) => {
    const due = dueSeconds >= from && dueSeconds < to;
    return due && firstSeconds !== undefined ? [firstSeconds - dueSeconds] : [];
  });
  if (waits.length === 0) return undefined;
  return { requests: waits.length, meanSeconds: mean(waits), medianSeconds: quantile(waits, 0.5) };
}

/** What a load from ready on comes to; its thousands of tokens are in the cell's own file. */
export interface ParityFigures {
  readonly requests: number;
  readonly failed: number;
  /** Of requests due while the load lasts. */
  readonly meanWaitSeconds?: number;
  /** Median time per output token in the end of the load. */
  readonly steadyMs?: number;
  /** `windowsOf` from ready to the load's end. */
  readonly windowMs: readonly (number | null)[];
  /** The same windows of `sharesOf`. */
  readonly alike?: Parity & {
    /** A window's median hides a stall. */
    readonly longestGapMs: number;
    readonly stockMs: MsByRequests;
  };
}

/** Of the end of the load: its steady time per output token. */
const STEADY_SECONDS = 30;

/** Seconds from spawn: when it was ready, second 0 of the load, and how long that lasts. */
export function parityFigures(
  requests: readonly RequestRecord[],
  readySeconds: number,
  loadSeconds: number,
  seconds: number,
  stockMs: MsByRequests = [],
): ParityFigures {
  const end = loadSeconds + seconds;
  const gaps = gapsOf(requests);
  const waits = waitsOf(requests, loadSeconds, end);
  const steadyMs = medianBetween(gaps, end - STEADY_SECONDS, end);
  const shares = windowsOf(sharesOf(gaps, stockMs), readySeconds, end);
  const longestGapMs = gaps
    .filter(({ atSeconds }) => atSeconds >= readySeconds && atSeconds < end)
    .reduce((longest, { ms }) => Math.max(longest, ms), 0);
  return {
    requests: requests.length,
    failed: requests.filter(({ failure }) => failure !== undefined).length,
    ...(waits === undefined ? {} : { meanWaitSeconds: waits.meanSeconds }),
    ...(steadyMs === undefined ? {} : { steadyMs }),
    windowMs: windowsOf(gaps, readySeconds, end),
    ...(stockMs.length > 0 ? { alike: { ...parityOf(shares, 1), longestGapMs, stockMs } } : {}),
  };
}
