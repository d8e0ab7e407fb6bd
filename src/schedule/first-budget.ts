/**
 * How long captures may take before ready, where nobody knows what they take: a share of what stock
 * would spend, as far as the captures so far tell. The plugin's `local_fill.py` has the same rule,
 * and both are held to test/golden/first-set.json.gz.
 */

import type { Graph, GraphKind } from "../base/graph.ts";

/** A capture before ready, as it was timed. */
export interface TimedCapture {
  readonly kind: GraphKind;
  readonly seconds: number;
  /** Whether a warm-up run came with it, as with the first one of its kind. */
  readonly warmUp: boolean;
}

/** Of the seconds that stock spends on capture, for steps with or without adapters. */
const SHARE = 1 / 30;

/**
 * What comes before ready, of the seconds that stock spends on all these graphs.
 *
 * Steps with and without LoRA adapters have graphs of their own, all as many: an engine with twice
 * the graphs is no more likely to meet any one of them, and whoever waits for it waits no longer.
 */
export function firstSetShare(planned: readonly Graph[]): number {
  return SHARE / Math.max(1, new Set(planned.map(({ loras = 0 }) => loras)).size);
}

/**
 * What is left of a capture without its warm-up run, which stock makes for every graph: 0.55 and
 * 0.63 on a Llama-3.1-8B under vLLM 0.26. Too high a share makes stock look cheaper than it is.
 */
const WITHOUT_WARM_UP = 0.65;

/**
 * A kind of which only the top was captured, cold: its other graphs take at most so many times what
 * the other kind's do. PIECEWISE took 1.5 times (a 30B MoE) and 2.4 times (an 8B) what FULL took.
 */
const KINDS_RATIO_MAX = 1.5;

/**
 * Seconds that stock would spend on these graphs at least, judged by captures of ours.
 *
 * @param twice from vLLM 0.29 on: all PIECEWISE graphs and two FULL are captured, thrown away, and
 * captured again
 */
export function stockSeconds(
  planned: readonly Graph[],
  captured: readonly TimedCapture[],
  twice: boolean,
): number {
  const cheapest = (kind: GraphKind, warmUp: boolean): number =>
    Math.min(
      ...captured.filter((of) => of.kind === kind && of.warmUp === warmUp).map((of) => of.seconds),
    );
  const warm = { FULL: cheapest("FULL", false), PIECEWISE: cheapest("PIECEWISE", false) };
  const each = (kind: GraphKind): number => {
    if (Number.isFinite(warm[kind])) return warm[kind] / WITHOUT_WARM_UP;
    const other = kind === "FULL" ? warm.PIECEWISE : warm.FULL;
    return Math.min(cheapest(kind, true), (KINDS_RATIO_MAX * other) / WITHOUT_WARM_UP);
  };
  let seconds = 0;
  for (const kind of ["PIECEWISE", "FULL"] as const) {
    const count = planned.filter((graph) => graph.kind === kind).length;
    const again = twice ? (kind === "FULL" ? Math.min(2, count) : count) : 0;
    // Of a kind that was never captured nothing is known, and nothing is counted.
    if (count > 0 && Number.isFinite(each(kind))) seconds += (count + again) * each(kind);
  }
  return seconds;
}

/**
 * Whether one more graph of the ladder fits.
 *
 * @param next its kind
 * @param budgetSeconds of whoever knows what stock takes; else it is a share of `stockSeconds`
 */
export function fitsBudget(
  next: GraphKind,
  planned: readonly Graph[],
  captured: readonly TimedCapture[],
  { twice, budgetSeconds }: { readonly twice: boolean; readonly budgetSeconds?: number },
): boolean {
  const spent = captured.reduce((sum, { seconds }) => sum + seconds, 0);
  const budget = budgetSeconds ?? firstSetShare(planned) * stockSeconds(planned, captured, twice);
  const alike = captured.filter(({ kind }) => kind === next);
  const warm = alike.filter(({ warmUp }) => !warmUp);
  const known = (warm.length > 0 ? warm : alike).map(({ seconds }) => seconds);
  // A kind that was never captured: nothing says that it would fit.
  return known.length > 0 && spent + Math.max(...known) <= budget;
}
