/** How soon after ready a server decodes as stock does, and how long requests wait. Pure. */

import type { RequestRecord } from "../../../src/bench/samples.ts";
import { mean, quantile } from "../../../src/measure/statistics.ts";

/** One output token after a request's first: when it came, and the time since the one before. */
export interface Gap {
  readonly atSeconds: number;
  readonly ms: number;
}

const WINDOW_SECONDS = 1;
const STEP_SECONDS = 0.1;
/** As much above stock's steady time per token still counts as parity. */
export const PARITY_SHARE = 0.1;

/** In order of time. */
export function gapsOf(requests: readonly RequestRecord[]): Gap[] {
  const gaps: Gap[] = [];
  for (const { firstSeconds, itlMicros } of requests) {
    let atSeconds = firstSeconds ?? 0;
    for (const micros of itlMicros) {
      atSeconds += micros / 1e6;
      gaps.push({ atSeconds, ms: micros / 1000 });
    }
  }
  return gaps.sort((a, b) => a.atSeconds - b.atSeconds);
}

/** Median of the gaps that end in [from, to); undefined of none. */
export function medianBetween(gaps: readonly Gap[], from: number, to: number): number | undefined {
  const inside = gaps.filter(({ atSeconds }) => atSeconds >= from && atSeconds < to);
  return inside.length === 0
    ? undefined
    : quantile(
        inside.map(({ ms }) => ms),
        0.5,
      );
}

export interface Parity {
  /** From `from` to the moment from which all one-second medians are within the share. */
  readonly seconds: number;
  /** False where the last window was still above it: `seconds` is then only a lower bound. */
  readonly reached: boolean;
  readonly windows: number;
  readonly windowsAbove: number;
}

/**
 * Looks at one-second windows, each a tenth of a second after the one before.
 *
 * @param from seconds from which it counts, and `to` where watching ends
 * @param steadyMs stock's steady median time per output token
 */
export function parityOf(
  gaps: readonly Gap[],
  from: number,
  to: number,
  steadyMs: number,
  share = PARITY_SHARE,
): Parity {
  let [windows, windowsAbove, seconds, reached] = [0, 0, 0, true];
  const steps = Math.floor((to - from - WINDOW_SECONDS) / STEP_SECONDS + 1e-9);
  for (let step = 0; step <= steps; step += 1) {
    const start = from + step * STEP_SECONDS;
    const median = medianBetween(gaps, start, start + WINDOW_SECONDS);
    if (median === undefined) continue;
    windows += 1;
    reached = median <= steadyMs * (1 + share);
    if (reached) continue;
    windowsAbove += 1;
    // The next window is the first that may be good.
    seconds = (step + 1) * STEP_SECONDS;
  }
  return { seconds, reached: reached && windows > 0, windows, windowsAbove };
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
