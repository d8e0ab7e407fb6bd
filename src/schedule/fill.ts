/**
 * Fill: which missing graph an idle engine captures next, by value per second of stall.
 *
 * A graph's value is what it would spare the steps to come. While next to nothing is known of them
 * only a sparse ladder is considered: the powers of two cover every size with at most twice the
 * tokens.
 */

import type { Graph } from "../graph.ts";
import { addSavings } from "./accounts.ts";
import type { Costs } from "./cost.ts";
import { HELD, type Held } from "./shapes.ts";
import type { Traffic } from "./traffic.ts";

export interface FillChoice {
  readonly graph: Graph;
  /** Request-seconds that the forecast steps would be spared. */
  readonly value: number;
  readonly stallSeconds: number;
  readonly rule: "ladder" | "value" | "rest";
}

export interface FillInput {
  readonly costs: Costs;
  readonly held: Held;
  readonly expected: readonly Traffic[];
  /** Steps behind `expected`: few make it unknown. */
  readonly steps: number;
}

/** Steps after which traffic counts as known: a second or two of serving. */
const KNOWN_STEPS = 200;

export function fillChoice(input: FillInput): FillChoice | undefined {
  const { costs, held, steps } = input;
  const values = valuesOf(costs, held, input.expected);
  const missing: number[] = [];
  for (let place = 0; place < held.length; place++) {
    if (held[place] === HELD.missing) missing.push(place);
  }
  const tokens = (place: number): number => costs.shapes.planned[place]?.tokens ?? 0;
  const ladder = missing.filter((place) => Number.isInteger(Math.log2(tokens(place))));
  const unknown = steps < KNOWN_STEPS && ladder.length > 0;
  const best = bestPerSecond(unknown ? ladder : missing, values, costs);
  if (best !== undefined) return { ...best, rule: unknown ? "ladder" : "value" };
  const [rest] = missing.sort((a, b) => tokens(b) - tokens(a));
  const graph = costs.shapes.planned[rest ?? -1];
  if (graph === undefined) return undefined;
  return { graph, value: 0, stallSeconds: costs.captureSeconds(graph).value, rule: "rest" };
}

/** Request-seconds that each missing graph would spare these steps, by its place in the plan. */
export function valuesOf(costs: Costs, held: Held, expected: readonly Traffic[]): Float64Array {
  const values = new Float64Array(held.length);
  for (const { bucket, weight } of expected) addSavings(values, costs, bucket, held, weight);
  return values;
}

function bestPerSecond(
  places: readonly number[],
  values: Float64Array,
  costs: Costs,
): Omit<FillChoice, "rule"> | undefined {
  let best: Omit<FillChoice, "rule"> | undefined;
  let bestRate = 0;
  for (const place of places) {
    const graph = costs.shapes.planned[place];
    const value = values[place] ?? 0;
    if (graph === undefined || value === 0) continue;
    const stallSeconds = costs.captureSeconds(graph).value;
    if (value / stallSeconds <= bestRate) continue;
    best = { graph, value, stallSeconds };
    bestRate = value / stallSeconds;
  }
  return best;
}
