/**
 * Captures ahead of a rising load: graphs for batches larger than the engine has now.
 *
 * A saturated engine is the worst place to capture in: a lost second delays every request until the
 * queue is gone. So what a rise of the load would need is captured before, at a cheap moment.
 *
 * How large the batch gets is a matter of utilisation `u`. With `n` requests at hand, work in
 * proportion to their number and a fixed cost of each step, a load `y` times as high makes it
 * `n·y·(1 − u) / (1 − u·y)`: at u = 0.3 half as much load again means twice the batch, at u = 0.7
 * it has no end. Turned round, `m` requests take a load of `m / (n·(1 − u) + m·u)` times today's,
 * and loads that much higher come with a chance of `y^(−1/RISE)`.
 */

import type { Graph } from "../graph.ts";
import type { EngineLoad } from "./load.ts";
import type { Savings } from "./savings.ts";
import { HELD, type Held } from "./shapes.ts";

export interface AheadInput {
  readonly savings: Savings;
  readonly held: Held;
  /** Requests at hand on average, and the share of the time that is work, from 0 to 1. */
  readonly engine: { readonly requests: number; readonly utilisation: number };
  /** Tokens of each request in a decode step: prompts are no larger under load. */
  readonly decode: number;
  /** Request-seconds that a capture of so many seconds costs now. */
  readonly priceOf: (stallSeconds: number) => number;
}

export interface AheadChoice {
  readonly graph: Graph;
  /** Request-seconds that it is expected to spare. */
  readonly value: number;
  readonly price: number;
  /** How much higher the load would have to be. */
  readonly rise: number;
}

/** A load higher by this share comes with a chance of 1 in e. */
const RISE = 1 / 6;
/** A rising load stays that long in each octave of batch sizes. */
const SECONDS_PER_OCTAVE = 30;
/** Who captures only when it is needed pays its price, and as much again in regret before that. */
const LATE_FACTOR = 2;
/** A moment is cheap when at most this share of the recent time had fewer requests at hand. */
export const CHEAP_SHARE = 0.1;

/** Whether next to never so few requests were at hand of late. */
export function isCheapMoment(engine: EngineLoad, requests: number): boolean {
  return engine.belowShare(requests) <= CHEAP_SHARE;
}

/** The graph worth most for its price, if any is worth it. */
export function aheadChoice(input: AheadInput): AheadChoice | undefined {
  const { savings, held, engine, decode } = input;
  if (held.missing === 0) return undefined;
  const { costs } = savings;
  const { sizes } = costs.shapes;
  const lane = costs.shapes.laneOf({ tokens: decode, requests: 1, uniform: decode });
  const { available } = savings.lane(lane, held);
  const requestsAt = (size: number): number => (sizes[size] ?? 0) / decode;
  const weights = new Float64Array(sizes.length);
  for (let size = 0; size < sizes.length; size++) {
    const rise = riseTo(requestsAt(size), engine);
    if (rise <= 1) continue;
    const octaves = size === 0 ? 1 : Math.log2((sizes[size] ?? 1) / (sizes[size - 1] ?? 1));
    const steps = (SECONDS_PER_OCTAVE * octaves) / (available[size] ?? 1);
    weights[size] = chanceOf(rise) * requestsAt(size) * steps;
  }
  const values = savings.of(held, [{ lane, weights }]);
  let best: AheadChoice | undefined;
  let bestRate = 0;
  for (let index = 0; index < lane.places.length; index++) {
    const place = lane.places[index] ?? 0;
    const value = values[place] ?? 0;
    if (value === 0 || held.at[place] !== HELD.missing) continue;
    const stallSeconds = costs.captureSecondsByPlace[place] ?? 0;
    const requests = requestsAt(lane.reach[index] ?? 0);
    const rise = riseTo(requests, engine);
    const late = LATE_FACTOR * chanceOf(rise) * stallSeconds * requests;
    const price = input.priceOf(stallSeconds);
    const graph = costs.shapes.planned[place];
    if (graph === undefined || Math.min(value, late) < price || value / price <= bestRate) continue;
    best = { graph, value: Math.min(value, late), price, rise };
    bestRate = value / price;
  }
  return best;
}

/** How much higher the load must be for so many requests at hand. */
function riseTo(requests: number, { requests: now, utilisation }: AheadInput["engine"]): number {
  return requests / (Math.max(1, now) * (1 - utilisation) + requests * utilisation);
}

function chanceOf(rise: number): number {
  return rise <= 1 ? 1 : rise ** (-1 / RISE);
}
