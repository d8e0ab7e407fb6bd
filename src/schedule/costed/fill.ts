/**
 * Fill: which missing graph an idle engine captures next, by value per second of stall.
 *
 * A graph's value is what it would spare the steps to come. While next to nothing is known of them
 * only a sparse ladder is considered: the powers of two cover every size with at most twice the
 * tokens.
 */

import type { Graph } from "../../base/graph.ts";
import type { Costs } from "./cost.ts";
import type { LaneWeights, Savings } from "./savings.ts";
import { HELD, type Held } from "./shapes.ts";

export interface Valued {
  readonly graph: Graph;
  /** Request-seconds that the forecast steps would be spared. */
  readonly value: number;
  readonly stallSeconds: number;
}

export interface FillChoice extends Valued {
  readonly rule: "ladder" | "value" | "rest";
}

export interface FillInput {
  readonly savings: Savings;
  readonly held: Held;
  readonly expected: readonly LaneWeights[];
  /** Steps behind `expected`: few make it unknown. */
  readonly steps: number;
}

/** Steps after which traffic counts as known: a second or two of serving. */
const KNOWN_STEPS = 200;

export function fillChoice({ savings, held, expected, steps }: FillInput): FillChoice | undefined {
  const { costs } = savings;
  const values = savings.of(held, expected);
  const missing = missingPlaces(held);
  const tokens = (place: number): number => costs.shapes.planned[place]?.tokens ?? 0;
  const ladder =
    steps < KNOWN_STEPS
      ? missing.filter((place) => Number.isInteger(Math.log2(tokens(place))))
      : [];
  const unknown = ladder.length > 0;
  const best = bestPerSecond(unknown ? ladder : missing, values, costs);
  if (best !== undefined) return { ...best, rule: unknown ? "ladder" : "value" };
  let rest = -1;
  for (const place of missing) if (rest === -1 || tokens(place) > tokens(rest)) rest = place;
  const graph = costs.shapes.planned[rest];
  if (graph === undefined) return undefined;
  return { graph, value: 0, stallSeconds: costs.captureSeconds(graph).value, rule: "rest" };
}

/** What spares the forecast steps most for each second of stall, if anything spares them any. */
export function mostValuable({
  savings,
  held,
  expected,
}: Omit<FillInput, "steps">): Valued | undefined {
  return bestPerSecond(missingPlaces(held), savings.of(held, expected), savings.costs);
}

function missingPlaces(held: Held): number[] {
  const missing: number[] = [];
  for (let place = 0; place < held.at.length; place++) {
    if (held.at[place] === HELD.missing) missing.push(place);
  }
  return missing;
}

function bestPerSecond(
  places: readonly number[],
  values: Float64Array,
  costs: Costs,
): Valued | undefined {
  let best = -1;
  let bestRate = 0;
  for (const place of places) {
    const value = values[place] ?? 0;
    if (value === 0) continue;
    const rate = value / (costs.captureSecondsByPlace[place] ?? 1);
    if (rate <= bestRate) continue;
    best = place;
    bestRate = rate;
  }
  const graph = costs.shapes.planned[best];
  if (graph === undefined) return undefined;
  return {
    graph,
    value: values[best] ?? 0,
    stallSeconds: costs.captureSecondsByPlace[best] ?? 0,
  };
}
